#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads the vectors as a program in another language would: by what is written
in src/core/codec.h and the README, with nothing of the library.

    read.py FOLDER     compares every field of every vector; prints how many

A place to start from for whoever reads records in Python.
"""
import struct
import sys
from pathlib import Path

STATUS = ["Idle", "Running", "Completed", "TimedOut", "Failed"]
KIND = ["none", "value", "opaque"]


class Refused(Exception):
    """No record, or none of a version that is known here."""


class Reader:
    """MessagePack, without the types that a record may not have."""

    INTEGERS = {0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q",
                0xd0: ">b", 0xd1: ">h", 0xd2: ">i", 0xd3: ">q"}
    FLOATS = {0xca: ">f", 0xcb: ">d"}
    TEXTS = {0xd9: ">B", 0xda: ">H", 0xdb: ">I"}
    BINARIES = {0xc4: ">B", 0xc5: ">H", 0xc6: ">I"}
    ARRAYS = {0xdc: ">H", 0xdd: ">I"}
    MAPS = {0xde: ">H", 0xdf: ">I"}

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        chunk = self.data[self.at:self.at + n]
        if len(chunk) < n:
            raise Refused("truncated")
        self.at += n
        return chunk

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, n):
        return self.take(n).decode("utf-8", "surrogateescape")

    def mapping(self, n):
        made = {}
        for _ in range(n):
            key = self.value()
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise Refused("a key that is neither string nor integer")
            made[key] = self.value()
        return made

    def value(self):
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first < 0x90:
            return self.mapping(first & 15)
        if first < 0xa0:
            return [self.value() for _ in range(first & 15)]
        if first < 0xc0:
            return self.text(first & 31)
        if first >= 0xe0:
            return first - 256
        if first in (0xc0, 0xc2, 0xc3):
            return {0xc0: None, 0xc2: False, 0xc3: True}[first]
        for forms, make in ((self.INTEGERS, None), (self.FLOATS, None),
                            (self.TEXTS, self.text),
                            (self.BINARIES, self.take),
                            (self.MAPS, self.mapping),
                            (self.ARRAYS, lambda n: [self.value()
                                                     for _ in range(n)])):
            if first in forms:
                number = self.number(forms[first])
                return make(number) if make else number
        raise Refused("an extension type")


def read_record(data):
    """A record as a dictionary; what is not said is 0, empty or no."""
    reader = Reader(data)
    first = reader.take(1)[0]
    if first & 0xf0 != 0x90:
        raise Refused("no array")
    left = (first & 15) - 2
    version, state = reader.value(), reader.value()
    if version != 1:
        raise Refused("a version that is not known")
    record = {"status": STATUS[state & 7], "kind": KIND[state >> 3 & 3],
              "crashed": bool(state & 32), "value": b"", "error": "",
              "trace": "", "last": 0, "tally": b""}
    names = ["count", "start", "duration", "error", "trace", "last", "tally"]
    if record["kind"] == "value":
        names.insert(0, "value")
    if not len(names) - 4 <= left <= len(names):
        raise Refused("too few elements, or too many")
    for name in names[:left]:
        begin = reader.at
        record[name] = reader.value()
        if name in ("value", "tally"):  # a vector has their bytes
            record[name] = data[begin:reader.at]
    if reader.at != len(data):
        raise Refused("more bytes follow")
    return record


def read_vector(path):
    """What a file says the fields are, and the bytes."""
    said = {}
    for line in path.read_text().splitlines():
        name, _, text = line.partition(" ")
        if name in ("bytes", "value", "tally"):
            said[name] = said.get(name, b"") + bytes.fromhex(text)
        elif name and name != "#":
            said[name] = text.strip()
    return said, said.pop("bytes")


def check(path):
    said, data = read_vector(path)
    if "refused" in said:
        try:
            read_record(data)
        except Refused:
            return
        raise AssertionError(f"{path.name}: was read")
    record = read_record(data)
    for name, value in record.items():
        nothing = {"status": "Idle", "kind": "none"}.get(name, type(value)())
        wanted = said.pop(name, nothing)
        if isinstance(value, bool):
            wanted = wanted in ("yes", True)
        elif isinstance(value, int):
            wanted = int(wanted)
        if value != wanted:
            raise AssertionError(f"{path.name}: {name} is {value!r}, "
                                 f"not {wanted!r}")
    if said:
        raise AssertionError(f"{path.name}: {', '.join(said)} not read")


def main():
    paths = sorted(Path(sys.argv[1]).glob("*.hex"))
    for path in paths:
        check(path)
    print(f"{len(paths)} vectors, all as they are to be")


if __name__ == "__main__":
    main()
