//! What computations with secrets leave on the stack below their caller: spilled registers, temporaries, what was moved away.
//! Types that wipe themselves do not reach it.

/// Deeper than any frame below a caller of [`wipe_stack`], as its test measures.
pub(crate) const DEPTH: usize = 32 << 10;

/// Overwrites the stack below the caller's frame, for 32 KiB. It is called where a batch's secrets are done with.
///
/// The caller must not be inlined into what it wipes for, nor the other way round: functions whose frames hold secrets are
/// `#[inline(never)]`, as this one is.
#[inline(never)]
#[cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(unsafe_code, reason = "tells the compiler that the zeros are read")
)]
pub fn wipe_stack() {
    let mut below = [0_u8; DEPTH];
    // SAFETY: the assembly has no instruction. The compiler must believe that it reads what the pointer leads to, and so has
    // to write the zeros, into an array of this frame and not of static memory, since it could be written to.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) below.as_mut_ptr(), options(nostack, preserves_flags));
    }
    std::hint::black_box(&mut below);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Copies the stack below the caller's frame, deepest byte last, as the calls before left it.
    #[inline(never)]
    #[expect(unsafe_code, reason = "looks at memory that is nobody's")]
    pub(crate) fn look_below(seen: &mut [u8]) {
        let here = 0_u8;
        let top = std::ptr::from_ref(std::hint::black_box(&here)).expose_provenance();
        for (depth, byte) in seen.iter_mut().enumerate() {
            let address = std::ptr::with_exposed_provenance::<u8>(top - depth);
            // SAFETY: it lies in the stack of this thread, which has megabytes below, mapped as they are touched. Nothing is
            // called in this loop, so what stands there is what others left.
            *byte = unsafe { address.read_volatile() };
        }
    }

    /// How many of the words stand in what [`look_below`] saw, and how deep the deepest of them is.
    pub(crate) fn found(seen: &[u8], words: &[[u8; 8]]) -> (usize, usize) {
        let hits = seen.windows(8).enumerate().filter(|(_, window)| {
            // It was copied from the top down.
            words.iter().any(|word| word.iter().rev().eq(window.iter()))
        });
        hits.fold((0, 0), |(count, _), (depth, _)| (count + 1, depth + 8))
    }

    /// The words of 32 bytes that clamping does not change.
    pub(crate) fn words(secrets: &[[u8; 32]]) -> Vec<[u8; 8]> {
        let middle = |secret: &[u8; 32]| {
            let (words, _) = secret.as_chunks::<8>();
            [words[1], words[2]]
        };
        secrets.iter().flat_map(middle).collect()
    }

    /// Leaves a secret at some depth.
    #[inline(never)]
    fn leave(secret: &[u8; 32], padding: &mut impl FnMut(&mut [u8])) {
        let mut copies = [[0_u8; 32]; 200];
        copies.fill(*secret);
        padding(copies.as_flattened_mut());
    }

    #[test]
    fn what_is_left_on_the_stack_is_seen_and_wiped() {
        let secret = [0xa7; 32].map(|byte: u8| byte.wrapping_mul(3));
        let mut seen = vec![0; DEPTH];
        leave(&secret, &mut |bytes| _ = std::hint::black_box(bytes));
        look_below(&mut seen);
        assert!(found(&seen, &words(&[secret])).0 > 100, "the test sees nothing");
        leave(&secret, &mut |bytes| _ = std::hint::black_box(bytes));
        wipe_stack();
        look_below(&mut seen);
        assert_eq!(found(&seen, &words(&[secret])).0, 0);
    }
}
