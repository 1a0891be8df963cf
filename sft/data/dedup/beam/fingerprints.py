"""128-bit fingerprints of all windows of tokens, without a loop over them.

A window is hashed as a tree: two halves that cover it, each of a power of two tokens, are mixed
into one hash, and so on down to tokens. Two such 64-bit hashes with constants of their own make a
fingerprint. Equal fingerprints are taken for equal windows: unlike in ``hash_windows`` nothing is
compared token by token, since the tokens are on other machines. Were the bits random, two of N
different windows would agree with a probability of N² / 2^129: 1.5e-15 for 10^12 windows. It is
somewhat more here, because the hashes of the halves may agree instead. The constants are in the
source, so nothing protects from text that somebody made to collide.

The rolling hash of ``hash_windows`` would be quicker, but modulo 2^64 certain texts (Thue's and
Morse's, of 1,024 tokens and more) agree whatever its base, and so under two bases at once.
"""

import numpy as np

# Of each hash: what sets its tokens apart, and the odd factor of the left half.
_LANES = (
    (0x243F6A8885A308D3, 0x9E3779B97F4A7C15),
    (0x13198A2E03707344, 0xD1342543DE82EF95),
)


def of_windows(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints of the windows that start at each token, wherever they end.

    Args:
      tokens: int32 ``[T]``.
      length: tokens of a window.

    Returns:
      The two hashes, uint64 ``[T - length + 1]``, or empty.
    """
    if len(tokens) < length:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    first, second = (_hashes(tokens, length, *lane) for lane in _LANES)
    return first, second


def _hashes(tokens: np.ndarray, length: int, offset: int, factor: int) -> np.ndarray:
    hashes = _mixed(tokens.astype(np.uint64) + np.uint64(offset))
    size = 1
    while size < length:
        step = min(size, length - size)  # the last halves overlap
        hashes = _mixed(hashes[:-step] * np.uint64(factor) + hashes[step:])
        size += step
    return hashes


def _mixed(x: np.ndarray) -> np.ndarray:
    """Every bit of ``x`` in every bit, one to one, in place: the last step of splitmix64."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
