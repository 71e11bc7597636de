# SPDX-License-Identifier: MIT
"""A terminal for specs: runs a command on a pty and does what the steps say.

terminal.py COLUMNS ROWS STEPS COMMAND...   a step a line:

  wait TEXT      until a line of the screen has the text
  gone TEXT      until none has it
  send KEYS      types them; \\e \\r \\x03 and so on as in Python
  size C R       another size
  signal NAME    to the command
  sh COMMAND     runs it
  stopped        until it is stopped
  screen         prints the screen
  writes N       until it has written N more pieces, none of them a whole wipe
  coloured       there were orders for colours; plain: there were none
  ended HOW      until it has ended: "exit 0", "signal 15"
  given back     the terminal is as it was: keys, cursor, wrapping, first screen

It fails, and prints the screen, when a step is not so within a minute.
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

PATIENCE = 60  # seconds; only what fails takes that long
ORDER = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]")


class Terminal:
    def __init__(self, columns, rows, command):
        self.columns, self.rows = columns, rows
        self.modes = {1049: False, 25: True, 7: True}
        self.wipes = self.pieces = 0
        self.coloured = False
        self.wipe()
        self.pending = ""
        self.partial = b""
        self.status = None
        self.stopped = False
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            time.sleep(0.05)  # until the size is set
            os.execvp(command[0], command)
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.fd)

    def wipe(self):
        self.grid = [[" "] * self.columns for _ in range(self.rows)]
        self.x = self.y = 0

    def resize(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.wipe()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def order(self, private, numbers, letter):
        numbers = [int(n or 0) for n in numbers.split(";")]
        if private:
            for n in numbers:
                self.modes[n] = letter == "h"
        elif letter == "H":
            self.x = self.y = 0
        elif letter == "K":
            for x in range(self.x, self.columns):
                self.grid[self.y][x] = " "
        elif letter == "J":
            self.wipes += 1
            self.wipe()
        elif letter == "m":
            self.coloured = self.coloured or numbers != [0]
        else:
            raise SystemExit("an order that is not known: " + letter)

    def put(self, char):
        if char == "\r":
            self.x = 0
        elif char == "\n":
            self.y += 1
            if self.y == self.rows:  # it scrolls
                self.grid.pop(0)
                self.grid.append([" "] * self.columns)
                self.y -= 1
        elif self.x < self.columns:
            self.grid[self.y][self.x] = char
            self.x += 1
        elif self.modes[1049]:
            raise SystemExit("a line is wider than the terminal\n" +
                             self.text())

    def take(self, data):
        self.pieces += 1
        try:
            text = (self.partial + data).decode()
            self.partial = b""
        except UnicodeDecodeError:
            self.partial += data
            return
        text, self.pending = self.pending + text, ""
        while text:
            found = ORDER.match(text)
            if found:
                if found.group(3):
                    self.order(*found.groups())
                text = text[found.end():]
            elif text[0] == "\x1b":
                self.pending = text
                return
            else:
                self.put(text[0])
                text = text[1:]

    def look(self):
        """Takes what there is within a moment."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                self.stopped = True
            elif pid and os.WIFSIGNALED(status):
                self.status = "signal %d" % os.WTERMSIG(status)
            elif pid:
                self.status = "exit %d" % os.WEXITSTATUS(status)
        ready, _, _ = select.select([self.fd], [], [], 0.01)
        try:
            if ready:
                self.take(os.read(self.fd, 65536))
                return True
        except OSError:
            time.sleep(0.01)
        return False

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.grid)

    def until(self, what, true):
        end = time.monotonic() + PATIENCE
        while not true():
            self.look()
            if time.monotonic() > end:
                raise SystemExit("not so: %s\n%s\n(%s)" % (
                    what, self.text(), self.status))

    def step(self, line):
        word, _, rest = line.partition(" ")
        if word == "wait":
            self.until(line, lambda: rest in self.text())
        elif word == "gone":
            self.until(line, lambda: rest not in self.text())
        elif word == "send":
            keys = rest.replace("\\e", "\x1b").encode().decode(
                "unicode_escape")
            os.write(self.fd, keys.encode("latin-1"))
        elif word == "size":
            self.resize(*map(int, rest.split()))
        elif word == "sh":
            subprocess.run(rest, shell=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
        elif word == "signal":
            self.stopped = False
            os.kill(self.pid, getattr(signal, "SIG" + rest))
        elif word == "stopped":
            self.until(line, lambda: self.stopped)
        elif word == "screen":
            while self.look():  # the rest of the frame
                pass
            print(self.text())
        elif word == "writes":
            wipes, end = self.wipes, self.pieces + int(rest)
            self.until(line, lambda: self.pieces >= end)
            if self.wipes != wipes:
                raise SystemExit("the screen was wiped between two frames")
        elif word in ("coloured", "plain"):
            if self.coloured != (word == "coloured"):
                raise SystemExit("it is not " + word)
        elif word == "ended":
            self.until(line, lambda: self.status is not None)
            while self.look():
                pass
            if self.status != rest:
                raise SystemExit("%s, not %s\n%s" % (self.status, rest,
                                                     self.text()))
        elif line == "given back":
            self.until(line, lambda: self.modes[1049] is False and
                       self.modes[25] and self.modes[7])
            if termios.tcgetattr(self.fd)[3] != self.before[3]:
                raise SystemExit("keys are not as they were")
        else:
            raise SystemExit("no such step: " + line)


def main():
    columns, rows, steps = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    terminal = Terminal(columns, rows, sys.argv[4:])
    try:
        for line in open(steps).read().splitlines():
            terminal.step(line)
    finally:
        if terminal.status is None:
            os.kill(terminal.pid, signal.SIGKILL)


main()
