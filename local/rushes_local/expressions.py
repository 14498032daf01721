"""moto's DynamoDB expressions, read once.

Hides three changes to moto. It parses each update expression twice and takes each condition apart with patterns that it
compiles for every word; the functions send the same few dozen expressions all day, so what does not depend on a
request's names and values is kept. It walks an expression's tree ten times to validate it, and at each node asks anew
what to do there. And the tree's nodes belong to abstract classes, which answer `isinstance` in Python: most of what an
update took.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

# More than all functions together have; a bound, since an expression can be of any client's making.
_MOST_EXPRESSIONS = 1000


def read_once() -> None:
    """Change moto for this process; a second call changes nothing. Imports moto."""
    from moto.dynamodb.comparisons import ConditionExpressionParser
    from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node  # type: ignore[attr-defined]
    from moto.dynamodb.parsing.expressions import UpdateExpressionParser  # type: ignore[attr-defined]

    if hasattr(Node, "__deepcopy__"):
        return
    for node_class in list(_with_subclasses(Node)):
        node_class.__class__ = _Concrete
    Node.__deepcopy__ = _copy_node
    # Whoever changes a tree copies it first.
    UpdateExpressionParser.make = staticmethod(lru_cache(_MOST_EXPRESSIONS)(UpdateExpressionParser.make))
    ConditionExpressionParser._lex_condition_expression = _lexed_once(  # type: ignore[method-assign,assignment]
        ConditionExpressionParser._lex_condition_expression
    )
    DepthFirstTraverser.traverse = _deciding_once(DepthFirstTraverser.pre_processing_of_child)


class _Concrete(type):
    """The class of a class that is only what it inherits, so that `isinstance` need not ask it."""


def _with_subclasses(node_class: Any) -> Iterator[Any]:
    yield node_class
    for each in node_class.__subclasses__():
        yield from _with_subclasses(each)


def _copy_node(node: Any, memo: dict[int, Any]) -> Any:
    """A tree of its own: what nodes have beside children and parent never changes."""
    copied = object.__new__(type(node))
    copied.__dict__.update(node.__dict__)
    if node.children is not None:
        copied.children = [
            child.__deepcopy__(memo) if isinstance(type(child), _Concrete) else child for child in node.children
        ]
        for child in copied.children:
            if isinstance(type(child), _Concrete):
                child.parent = copied
    return copied


def _lexed_once(lex: Callable[[Any], deque[Any]]) -> Callable[[Any], deque[Any]]:
    """The words of a condition, whose names and values are looked up later."""
    known: dict[str, tuple[Any, ...]] = {}

    def lex_condition_expression(parser: Any) -> deque[Any]:
        expression = parser.condition_expression
        if expression not in known:
            if len(known) >= _MOST_EXPRESSIONS:
                known.clear()
            known[expression] = tuple(lex(parser))
        return deque(known[expression])

    return lex_condition_expression


def _deciding_once(idle: Callable[..., None]) -> Callable[[Any, Any], Any]:
    """moto's walk, children before parents; what to do with a class of nodes is decided when the first is met.

    `idle` is the hook for each child that moto calls in vain for all processors but one.
    """

    def traverse(traverser: Any, root: Any) -> Any:
        processing = traverser._processing_map()
        before = traverser.pre_processing_of_child if type(traverser).pre_processing_of_child is not idle else None
        processors: dict[type, Any] = {}

        def walk(node: Any, index: int) -> Any:
            for number, child in enumerate(node.children or ()):
                if before is not None:
                    before(node, number)
                if type(type(child)) is _Concrete:
                    walk(child, number)
            node_class = type(node)
            if node_class not in processors:
                wanted = (process for about, process in processing.items() if issubclass(node_class, about))
                processors[node_class] = next(wanted, None)
            if process := processors[node_class]:
                parent = node.parent
                node = process(node)
                node.parent = parent
                if parent is not None:
                    parent.children[index] = node
            return node

        return walk(root, -1)

    return traverse
