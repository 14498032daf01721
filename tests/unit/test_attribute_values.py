"""DynamoDB's typed JSON, compared with boto3's."""

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
def test_values_are_written_as_boto3_writes_them(value: Any) -> None:
    """Every value the table may hold is written as boto3 writes it, and boto3 reads it as the same."""
    assert wire(value) == TypeSerializer().serialize(value)
    assert TypeDeserializer().deserialize(wire(value)) == value


@given(VALUES)
def test_values_are_read_as_they_were_written(value: Any) -> None:
    """A value is read as it was written, whole numbers as integers and booleans as booleans."""
    read = plain(wire(value))
    assert (read, repr(read)) == (value, repr(value))


def test_enumeration_members_are_written_as_texts() -> None:
    """An enumeration member is written as its text, and a tuple as a list."""
    assert wire({"kinds": (Kind.STORED,)}) == {"M": {"kinds": {"L": [{"S": "stored"}]}}}


@pytest.mark.parametrize("value", [1.5, b"bytes", {"a", "b"}, object()], ids=lambda value: type(value).__name__)
def test_other_types_are_not_written(value: object) -> None:
    """A value that would be read as something else is not written."""
    with pytest.raises(TypeError, match=type(value).__name__):
        wire({"member": [value]})


@pytest.mark.parametrize("value", [{"B": b"bytes"}, {"SS": ["a"]}, {"NS": ["1"]}], ids=str)
def test_unused_types_are_not_read(value: dict[str, Any]) -> None:
    """A type that the service does not use is refused."""
    with pytest.raises(TypeError):
        plain(value)
