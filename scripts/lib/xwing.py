"""X-Wing (draft-connolly-cfrg-xwing-kem-06) with ML-KEM-768 (FIPS 203), to check examples against: slow, and nothing here takes the
same time for all secrets. Names are those of the standards; K-PKE is written into the functions that use it.

    key = Key(decapsulation_key)            # 32 bytes
    key.public                              # 1,216 bytes: ML-KEM 1,184 || X25519 32
    ciphertext, secret = encapsulate(key.public, randomness)      # 64 bytes: m of ML-KEM || the X25519 key
    key.decapsulate(ciphertext) == secret
"""
from functools import lru_cache
from hashlib import sha3_256, sha3_512, shake_128, shake_256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

# ---- FIPS 203, with the parameters of ML-KEM-768.

Q, N, RANK, DU, DV = 3329, 256, 3, 10, 4
PUBLIC_LEN, CIPHERTEXT_LEN = 1184, 1088
LABEL = b"\\.//^\\"

def reversed_7_bits(i): return int(f"{i:07b}"[::-1], 2)

ZETAS = [pow(17, reversed_7_bits(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * reversed_7_bits(i) + 1, Q) for i in range(128)]

def ntt(f):
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i + 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j], f[j + length] = (f[j] + t) % Q, (f[j] - t) % Q
        length //= 2
    return f

def inverse_ntt(f):
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i - 1
            for j in range(start, start + length):
                f[j], f[j + length] = (f[j] + f[j + length]) % Q, zeta * (f[j + length] - f[j]) % Q
        length *= 2
    return [x * 3303 % Q for x in f]

def add(f, g): return [(a + b) % Q for a, b in zip(f, g)]

def subtract(f, g): return [(a - b) % Q for a, b in zip(f, g)]

def product(f, g):
    """Of two polynomials that were transformed: 128 products modulo X² - gamma."""
    out = []
    for i, gamma in enumerate(GAMMAS):
        a, b, c, d = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        out += [(a * c + b * d * gamma) % Q, (a * d + b * c) % Q]
    return out

def inner(fs, gs):
    total = [0] * N
    for f, g in zip(fs, gs):
        total = add(total, product(f, g))
    return total

def to_bytes(values, bits):
    """ByteEncode: so many bits of each, the lowest first."""
    return sum(v << bits * i for i, v in enumerate(values)).to_bytes(len(values) * bits // 8, "little")

def from_bytes(data, bits):
    whole = int.from_bytes(data, "little")
    return [whole >> bits * i & (1 << bits) - 1 for i in range(len(data) * 8 // bits)]

def compress(f, bits): return [((x << bits) + Q // 2) // Q % (1 << bits) for x in f]

def decompress(f, bits): return [(x * Q + (1 << bits - 1)) >> bits for x in f]

@lru_cache(None)
def uniform(rho, j, i):
    """SampleNTT: numbers of 12 bits, those that are below Q. 280 triples have 256 of them but with a chance of 2**-38, then more are read."""
    size = 840
    while True:
        numbers = [x for x in from_bytes(shake_128(rho + bytes([j, i])).digest(size), 12) if x < Q]
        if len(numbers) >= N: return numbers[:N]
        size *= 2

def small(seed, n):
    """SamplePolyCBD with eta = 2: of four bits each, the first two less the last two."""
    return [(x & 1) + (x >> 1 & 1) - (x >> 2 & 1) - (x >> 3) for x in from_bytes(shake_256(seed + bytes([n])).digest(128), 4)]

def matrix(rho): return [[uniform(rho, j, i) for j in range(RANK)] for i in range(RANK)]

class MlKem:
    """A key pair from the seeds d and z."""
    def __init__(self, d, z):
        both = sha3_512(d + bytes([RANK])).digest()
        rho, sigma = both[:32], both[32:]
        self.s = [ntt(small(sigma, n)) for n in range(RANK)]
        e = [ntt(small(sigma, RANK + n)) for n in range(RANK)]
        t = [add(inner(row, self.s), e[i]) for i, row in enumerate(matrix(rho))]
        self.z, self.public = z, b"".join(to_bytes(f, 12) for f in t) + rho

    def decapsulate(self, ciphertext):
        size = 32 * DU
        u = [decompress(from_bytes(ciphertext[size * i:size * (i + 1)], DU), DU) for i in range(RANK)]
        v = decompress(from_bytes(ciphertext[size * RANK:], DV), DV)
        w = subtract(v, inverse_ntt(inner(self.s, [ntt(f) for f in u])))
        again, secret = ml_kem_encapsulate(self.public, to_bytes(compress(w, 1), 1))
        return secret if again == ciphertext else shake_256(self.z + ciphertext).digest(32)

def ml_kem_encapsulate(public, m):
    """The ciphertext and the secret that follow from 32 random bytes."""
    t, rho = [from_bytes(public[384 * i:384 * (i + 1)], 12) for i in range(RANK)], public[384 * RANK:]
    if any(x >= Q for f in t for x in f): raise ValueError("a coefficient that is not reduced")
    both = sha3_512(m + sha3_256(public).digest()).digest()
    secret, r = both[:32], both[32:]
    y = [ntt(small(r, n)) for n in range(RANK)]
    columns = zip(*matrix(rho))
    u = [add(inverse_ntt(inner(column, y)), small(r, RANK + i)) for i, column in enumerate(columns)]
    v = add(add(inverse_ntt(inner(t, y)), small(r, 2 * RANK)), decompress(from_bytes(m, 1), 1))
    return b"".join(to_bytes(compress(f, DU), DU) for f in u) + to_bytes(compress(v, DV), DV), secret

# ---- X-Wing.

def x25519(scalar, point):
    """Zeros too are a secret here: X-Wing does not refuse points of small order."""
    try:
        return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError:
        return bytes(32)

def combine(of_ml_kem, of_x25519, ciphertext, public): return sha3_256(of_ml_kem + of_x25519 + ciphertext + public + LABEL).digest()

BASE_POINT = bytes([9]).ljust(32, b"\0")

class Key:
    """What follows from the 32 bytes of a decapsulation key."""
    def __init__(self, decapsulation_key):
        expanded = shake_256(decapsulation_key).digest(96)
        self.ml_kem, self.x = MlKem(expanded[:32], expanded[32:64]), expanded[64:]
        self.x_public = x25519(self.x, BASE_POINT)
        self.public = self.ml_kem.public + self.x_public

    def decapsulate(self, ciphertext):
        mine, point = ciphertext[:CIPHERTEXT_LEN], ciphertext[CIPHERTEXT_LEN:]
        return combine(self.ml_kem.decapsulate(mine), x25519(self.x, point), point, self.x_public)

def encapsulate(public, randomness):
    """The ciphertext and the secret that follow from 64 random bytes."""
    ciphertext, of_ml_kem = ml_kem_encapsulate(public[:PUBLIC_LEN], randomness[:32])
    point = x25519(randomness[32:], BASE_POINT)
    return ciphertext + point, combine(of_ml_kem, x25519(randomness[32:], public[PUBLIC_LEN:]), point, public[PUBLIC_LEN:])
