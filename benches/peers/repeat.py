"""Makes a long recording of a short one, its samples again and again: `repeat.py FROM TO TIMES`.

What stands in a recording is told by src/recorder/format.rs, and what in its timeline by
src/profile/timeline.rs. Stacks stay as they are; counts and times grow.
"""
import struct
import sys

HEADER_BYTES, TICKS, DURATION_NS, SAMPLES, USED = 128, 24, 48, 64, 16
TALLY, MOMENTS = 7, 8
TALLY_NUMBERS = 16


def take(block, at):
    number = shift = 0
    while True:
        number |= (block[at] & 0x7F) << shift
        shift += 7
        at += 1
        if block[at - 1] < 0x80:
            return number, at


def put(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def later(block, by_us):
    """Only the first entry tells its time from the start; zigzag, so twice."""
    if not block or not block[0]:
        return block
    _, time_at = take(block, 0)
    time, rest_at = take(block, time_at)
    return block[:time_at] + put(time + 2 * by_us) + block[rest_at:]


def record(word, checksum, contents):
    return struct.pack("<II", word, checksum) + contents + bytes(-len(contents) % 8)


def checksum_of_block(word):
    checksum = 0x811C9DC5
    for byte in word.to_bytes(4, "little"):
        checksum = (checksum ^ byte) * 0x01000193 & 0xFFFFFFFF
    return checksum


def main(source, target, times):
    with open(source, "rb") as file:
        recording = file.read()
    header = bytearray(recording[:HEADER_BYTES])
    for place in TICKS, TICKS + 8, TICKS + 16, DURATION_NS, SAMPLES:
        (number,) = struct.unpack_from("<Q", header, place)
        struct.pack_into("<Q", header, place, number * times)
    struct.pack_into("<Q", header, USED, 0)
    (duration_ns,) = struct.unpack_from("<Q", recording, DURATION_NS)
    blocks = []
    with open(target, "wb") as out:
        out.write(header)
        at = HEADER_BYTES
        while at + 8 <= len(recording):
            word, checksum = struct.unpack_from("<II", recording, at)
            if not word:
                break
            contents = recording[at + 8 : at + 8 + (word >> 8)]
            at += 8 + -(-len(contents) // 8) * 8
            if word & 0xFF == MOMENTS:
                blocks.append(contents)
                continue
            if word & 0xFF == TALLY:
                numbers = struct.unpack_from("<QQQ", contents, TALLY_NUMBERS)
                more = struct.pack("<QQQ", *(number * times for number in numbers))
                contents = contents[:TALLY_NUMBERS] + more
            out.write(record(word, checksum, contents))
        for number in range(times):
            for block in blocks:
                contents = later(block, number * duration_ns // 1000)
                word = len(contents) << 8 | MOMENTS
                out.write(record(word, checksum_of_block(word), contents))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
