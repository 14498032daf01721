"""Names of objects that every component must treat as the same key: as S3 stores them, without any encoding."""

_EMOJI = "\N{CLAPPER BOARD}"

OBJECT_NAMES = {
    "escaped space": "a%20b",
    "escaped slash and dots": "%2F%2e%2e%2F%41",
    "percent": "100%",
    "plus and space": "a+b c  d",
    "query and fragment": "a?b=c&versionId=d#e",
    "dots": "..a/b../.../.c",
    "backslash and quotes": "a\\b'c\"d<e>&amp;",
    "separators": "a;b,c:d@e=f|g~h!i$j*(k)[l]{m}^n`o",
    "emoji": f"{_EMOJI}/\N{FAMILY}\N{ZERO WIDTH JOINER}{_EMOJI}",
    "composed and decomposed": "\u00e9/e\u0301",
    "other scripts": "\u043a\u043b\u044e\u0447/\u30ad\u30fc/\u05de\u05e4\u05ea\u05d7",
    "long": "x" * 300 + "%" * 100 + "\u00e4" * 100,
}
"""By a short description. Each fits into S3's 1,024 bytes with a folder before it and a suffix behind it."""


def longest(key: str) -> str:
    """The key with a longer last part: 1,024 bytes, the most that S3 takes."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{'%' * (1024 - len(key.encode()))}{name}"
