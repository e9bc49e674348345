"""What is printed: control characters in letters, and no error whatever becomes of the stream."""

import errno
import io
import os

import pytest

from minippo.run.errors import complain, printable
from minippo.run.terminal import Screen


@pytest.mark.parametrize("text, shown", [
    ("\x1b[31mred", r"\x1b[31mred"),                      # a colour
    ("\x1b]0;title\x07", r"\x1b]0;title\x07"),            # a window's title, and a bell
    ("12 %\r99 %", r"12 %\r99 %"),                        # back to the line's beginning
    ("\x00\x08\x0b\x0c\x1f\x7f", r"\x00\x08\x0b\x0c\x1f\x7f"),
    ("\x80\x85\x9b31m\x9f", r"\x80\x85\x9b31m\x9f"),      # C1: 9b is an escape and [ in one
    ("\u202a\u202e\u2066\u2069", r"\u202a\u202e\u2066\u2069"),
])
def test_what_a_terminal_obeys_is_written_in_letters(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown   # so it may pass twice


def test_all_else_is_as_it_was():
    text = "a\tb\nc \\x1b é\xa0\xad \u200d\u200f 你 🙂 \u2029 \ud800"
    assert printable(text) == text


def test_every_control_of_the_five_ranges_and_no_other_character_is_changed():
    changed = [code for code in range(0x110000) if printable(chr(code)) != chr(code)]
    # C0 but newline and tab, DEL and C1, bidi embeddings and overrides, bidi isolates
    assert len(changed) == 30 + 33 + 5 + 4
    assert [changed[i] for i in (0, -1)] == [0, 0x2069] and not {9, 10, 32, 160} & set(changed)


def test_an_error_line_has_no_controls_even_outside_a_script_and_is_not_longer_for_them(capsys):
    complain("no such file: \x1b[2J" + 500 * "\x07")
    err = capsys.readouterr().err
    assert err.startswith(r"error: no such file: \x1b[2J\x07") and len(err) == len("error: \n") + 1005
    assert "\x1b" not in err and "\x07" not in err   # 500, " ... " and 500 of them are left


# ---------------------------------------------------------------- a Screen

class Broken(io.StringIO):
    """Takes three texts, and then none."""

    def __init__(self, error):
        super().__init__()
        self.error, self.taken = error, 0

    def write(self, text):
        self.taken += 1
        if self.taken > 3:
            raise self.error
        return super().write(text)


FULL, UNREAD = OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("error, stops", [(FULL, True), (FULL, False), (UNREAD, False)])
def test_what_cannot_be_written_is_remembered_and_raises_nothing(error, stops):
    screen = Screen(Broken(error), stops)
    print("one", "two", file=screen)   # three texts and the end of the line
    print("more", file=screen, flush=True)
    assert screen.lost is error and screen.stream.getvalue() == "one two"


def test_nobody_reading_ends_what_nobody_needs_to_the_end():
    screen = Screen(Broken(UNREAD), stops=True)
    with pytest.raises(SystemExit) as left:
        print("one", "two", file=screen)
    assert left.value.code == 141   # 128 + 13, SIGPIPE


def test_printed_text_loses_its_controls_and_our_own_codes_keep_them():
    screen = Screen(io.StringIO(), stops=False)
    print("a \x1b[2J\n b", file=screen)
    screen.write_codes("\r\033[K")
    assert screen.stream.getvalue() == "a \\x1b[2J\n b\n\r\033[K" and screen.lost is None


def test_a_screen_answers_as_its_stream_does():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    screen = Screen(stream, stops=False)
    assert screen.encoding == "ascii" and screen.isatty() is False and screen.buffer is stream.buffer
    assert not hasattr(screen, "no_such_thing")


def test_a_stream_that_was_closed_loses_what_is_written_and_nothing_else():
    screen = Screen(None, stops=True)
    screen.flush()
    assert screen.lost is None and not screen.isatty()
    print("text", file=screen, flush=True)
    assert screen.lost.errno == errno.EBADF
    screen.stream.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_what_waited_in_the_buffer_of_a_full_disk_is_no_error_later():
    with open("/dev/full", "w") as stream:   # closing it flushes
        screen = Screen(stream, stops=True)
        print("text", file=screen)
        assert screen.lost is None           # it waits
        screen.flush()
        assert screen.lost.errno == errno.ENOSPC
        print("more", file=screen, flush=True)
