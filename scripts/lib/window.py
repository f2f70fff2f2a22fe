"""A member at his page: what he does there by mouse and keyboard, and what it shows him."""

import json
import re

from report import must

# A camera's picture, and how large a square of a code is in it.
WIDTH, HEIGHT, SQUARE = 640, 480, 9


def film(path, squares):
    """What a browser takes for the picture of its camera: a code of these squares, black on white, on grey."""
    side = 1 + max(max(square) for square in squares)
    left, top = (WIDTH - side * SQUARE) // 2, (HEIGHT - side * SQUARE) // 2
    light = bytearray([120]) * (WIDTH * HEIGHT)
    margin = 4 * SQUARE
    for y in range(top - margin, top + side * SQUARE + margin):
        light[y * WIDTH + left - margin:y * WIDTH + left + side * SQUARE + margin] = bytes([230]) * (side * SQUARE + 2 * margin)
    for x, y in squares:
        for row in range(top + y * SQUARE, top + (y + 1) * SQUARE):
            light[row * WIDTH + left + x * SQUARE:row * WIDTH + left + (x + 1) * SQUARE] = bytes([30]) * SQUARE
    frame = b"FRAME\n" + bytes(light) + bytes([128]) * (WIDTH * HEIGHT // 2)
    path.write_bytes(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\n".encode() + 10 * frame)


def camera(path):
    """Options of a browser whose camera shows the film at a path, and may be used by every page."""
    return "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--use-file-for-fake-video-capture={path}"


class Window:
    def __init__(self, tab):
        self.tab = tab

    def opens(self, url):
        """An address with a code in it, or the file that takes a browser to one."""
        self.tab.go(url)
        must(self.tab.until("document.querySelector('.frame')"), f"the page does not open: {self.text()!r} {self.tab.logged()[-3:]}")

    def text(self):
        return self.tab.js("document.body.innerText")

    def waits(self, expression, within, else_):
        """The value of an expression once it is true; else what it would have meant, and what the page shows instead."""
        value = self.tab.until(expression, within)
        must(value, f"{else_}; the page shows {self.text()[-400:]!r}")
        return value

    def shows(self, name, within=90):
        """Opens the conversation whose line in the list has this text, once it is there."""
        find = f"[...document.querySelectorAll('.side .row')].find(row => row.innerText.includes({json.dumps(name)}))"
        self.waits(find + " !== undefined", within, f"no conversation with {name}")
        self.tab.js(find + ".click()")

    def people(self):
        """Opens the list of people, and says who is in it."""
        self.tab.js("document.querySelectorAll('.side .bar .round')[1].click()")
        self.waits("document.querySelector('dialog[open] input') === document.activeElement", 15, "no list of people")
        return self.tab.js("[...document.querySelectorAll('dialog .row .name')].map(name => name.innerText)")

    def closes(self):
        """Closes what is open over the page."""
        self.tab.key("Escape")
        self.waits("!document.querySelector('dialog')", 15, "Escape does not close it")

    def chooses(self, name):
        """Opens the conversation with somebody of the list of people."""
        self.people()
        self.tab.types(name)
        self.waits("document.querySelectorAll('dialog .row').length === 1", 15, f"{name} is not found")
        self.tab.key("Enter")

    def finds(self, text):
        """The people whom the search over the list finds."""
        self.tab.js("document.getElementById('search').select()")
        self.tab.types(text)
        done = "document.querySelector('.side h2[role=status]')?.innerText"
        self.waits(f"{done} && !{done}.includes('Searching')", 15, "the search does not end")
        return self.tab.js("[...document.querySelectorAll('.side .list > ul:not(h2[role=status] ~ ul) .name')].map(name => name.innerText)")

    def writes(self, text):
        """Writes into the conversation that is open; what the page shows of it."""
        self.waits("document.activeElement?.tagName === 'TEXTAREA'", 15, "the field has not the focus")
        self.tab.types(text)
        self.tab.key("Enter")
        own = "[...document.querySelectorAll('.own.message')].at(-1)?.innerText"
        self.waits(f"{own}?.includes({json.dumps(text)})", 15, f"{text!r} does not show")
        return self.tab.js(own).replace("\n", " ")

    def reads(self, text, within):
        """Waits until the conversation that is open has a message of the other one."""
        came = f"[...document.querySelectorAll('.message:not(.own) .text')].some(e => e.textContent.includes({json.dumps(text)}))"
        self.waits(came, within, f"{text!r} does not come")

    def digits(self):
        """The digits to compare with the other one."""
        self.tab.js("document.querySelector('.head .quiet').click()")
        return " ".join(self.waits("document.querySelector('.digits') && [...document.querySelectorAll('.digits li')].map(e => e.innerText)", 15, "no digits"))

    def marks(self):
        """Says that the digits are the same."""
        self.tab.js("document.querySelector('dialog .primary').click()")
        self.waits("document.querySelector('dialog .good')", 15, "the mark is not kept")

    def code(self):
        """The black squares of the code for a camera, beside the digits."""
        path = self.waits("document.querySelector('dialog .qr path')?.getAttribute('d')", 15, "no code")
        return [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", path)]

    def scans(self):
        """Looks through the camera, which the page ends once it saw a code of two people."""
        self.tab.js("document.querySelectorAll('dialog .acts .quiet')[document.querySelectorAll('dialog .acts .quiet').length - 1].click()")
        self.waits("document.querySelector('dialog video')", 15, "no camera")
        self.waits("!document.querySelector('dialog video')", 30, "no code is seen")

    def details(self, text):
        """Opens what there is of a message."""
        self.tab.js(f"[...document.querySelectorAll('.message')].find(e => e.textContent.includes({json.dumps(text)})).querySelector('.meta').click()")
        self.waits("document.querySelector('dialog .acts')", 15, "no details")

    def presses(self, label):
        """Presses the button of a dialog that says this."""
        self.tab.js(f"[...document.querySelectorAll('dialog button')].find(e => e.innerText.trim() === {json.dumps(label)}).click()")
