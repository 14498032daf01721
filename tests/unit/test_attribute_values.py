"""DynamoDB's typed JSON, judged by boto3, which has it for every type."""

from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from rushes.adapters.dynamodb.attribute_values import plain, wire
from rushes.domain.clip import Kind

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**38) + 1, 10**38 - 1) | st.text(),
    lambda members: st.lists(members, max_size=4) | st.dictionaries(st.text(), members, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_what_is_written_is_what_boto3_would_write(value: Any) -> None:
    """Every value the table may hold goes out as boto3 would send it, and boto3 reads it as the same."""
    assert wire(value) == TypeSerializer().serialize(value)
    assert TypeDeserializer().deserialize(wire(value)) == value


@given(VALUES)
def test_what_was_written_is_read(value: Any) -> None:
    """A value comes back as it was, whole numbers as integers and booleans as booleans."""
    read = plain(wire(value))
    assert (read, repr(read)) == (value, repr(value))


def test_names_are_texts() -> None:
    """A member of an enumeration of names is written as its text, and a tuple as a list."""
    assert wire({"kinds": (Kind.STORED,)}) == {"M": {"kinds": {"L": [{"S": "stored"}]}}}


@pytest.mark.parametrize("value", [1.5, b"bytes", {"a", "b"}, object()], ids=lambda value: type(value).__name__)
def test_what_the_table_never_holds(value: object) -> None:
    """Nothing is written that would come back as something else."""
    with pytest.raises(TypeError, match=type(value).__name__):
        wire({"member": [value]})


@pytest.mark.parametrize("value", [{"B": b"bytes"}, {"SS": ["a"]}, {"NS": ["1"]}], ids=str)
def test_what_nobody_wrote(value: dict[str, Any]) -> None:
    """A type that is not used here is refused rather than misread."""
    with pytest.raises(TypeError):
        plain(value)
