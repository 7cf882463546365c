"""Turns what ``torch.onnx`` wrote into the step that pam-compile documents.

Names become the parameters' own, state inputs get their initial values as defaults, gradients
stop being outputs, and nodes say their role and component instead of the exporter's long traces.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from . import components

ROLE = "pam.role"


def _subgraph_inputs(node: NodeProto):
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                yield from inner.input
                yield from _subgraph_inputs(inner)


def rename_values(model: ModelProto, names: dict[str, str]) -> None:
    """Renames values; an inner value that already has a wanted name makes way."""
    graph = model.graph
    taken = {o for n in graph.node for o in n.output} | {i.name for i in graph.initializer}
    taken |= {i.name for i in graph.input}
    wanted = set(names.values())
    full = dict(names)
    for name in sorted((taken & wanted) - set(names)):
        fresh = f"{name}_inner"
        while fresh in taken or fresh in wanted:
            fresh += "_"
        full[name] = fresh
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        value.name = full.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [full.get(v, v) for v in node.input]
        node.output[:] = [full.get(v, v) for v in node.output]


def give_outputs_their_own_value(model: ModelProto) -> None:
    """An output that is an input, an initializer or another output gets an Identity of its own."""
    graph = model.graph
    seen = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    for index, output in enumerate(graph.output):
        if output.name in seen:
            fresh = f"output_{index}_copy"
            graph.node.append(
                helper.make_node("Identity", [output.name], [fresh], name=f"node_{fresh}")
            )
            output.name = fresh
        seen.add(output.name)


def ancestors(model: ModelProto, names: list[str]) -> set[int]:
    """Indices of the nodes that ``names`` are computed from."""
    producer = {o: i for i, n in enumerate(model.graph.node) for o in n.output if o}
    found, stack = set(), list(names)
    while stack:
        index = producer.get(stack.pop())
        if index is not None and index not in found:
            found.add(index)
            node = model.graph.node[index]
            stack.extend(node.input)
            stack.extend(_subgraph_inputs(node))
    return found


def set_metadata(target, **entries) -> None:
    """Adds entries to ``metadata_props``; dots in keys are written as two underscores."""
    for key, value in entries.items():
        entry = target.metadata_props.add()
        entry.key, entry.value = key.replace("__", "."), value


def tag_nodes(
    model: ModelProto,
    known: dict[str, str],
    *,
    loss: str,
    outputs: list[str],
    buffers: list[str],
    gradients: list[str],
    output_gradients: list[str],
) -> None:
    """Writes ``pam.role`` and ``pam.component`` on every node.

    Roles follow from what a node is needed for, in this order: model outputs and new buffers
    (forward), the loss, the gradients (backward), the rest (optimizer). ``known`` maps a node's
    name to its traced component. Loss nodes, and what lies between the loss and the gradient of
    the model's outputs, belong to the loss whatever operators they are made of.
    """
    forward = ancestors(model, [*outputs, *buffers])
    of_loss = ancestors(model, [loss]) - forward
    loss_backward = ancestors(model, output_gradients) - forward - of_loss
    backward = ancestors(model, [*gradients, *output_gradients]) - forward - of_loss
    for index, node in enumerate(model.graph.node):
        component = known.get(node.name) or components.of_onnx(node.op_type)
        if index in forward:
            role = "forward"
        elif index in of_loss:
            role, component = "loss", "loss"
        elif index in loss_backward:
            role, component = "backward", "loss"
        elif index in backward:
            role = "backward"
        else:
            role, component = "optimizer", "optimizer"
        set_metadata(node, pam__role=role, pam__component=component)


def strip(model: ModelProto) -> None:
    """Drops doc strings and the exporter's metadata, which can outweigh the weights."""
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        value.doc_string = ""
        del value.metadata_props[:]
    for initializer in model.graph.initializer:
        initializer.doc_string = ""
        del initializer.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]


def set_defaults(model: ModelProto, values: dict[str, np.ndarray]) -> None:
    """Makes each input in ``values`` optional: an initializer of the same name holds its value."""
    for name, value in values.items():
        # ascontiguousarray would turn a scalar into a vector of length one.
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, order="C"), name))


def drop_unused_initializers(model: ModelProto) -> None:
    """Removes constants that no node reads any more."""
    graph = model.graph
    used = {v for n in graph.node for v in [*n.input, *_subgraph_inputs(n)]}
    used |= {o.name for o in graph.output} | {i.name for i in graph.input}
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def sort_topologically(model: ModelProto) -> None:
    """Keeps the exporter's order and moves a node back only where it reads a later value."""
    graph = model.graph
    ready = {i.name for i in graph.input} | {i.name for i in graph.initializer} | {""}
    ordered, waiting = [], list(graph.node)
    while waiting:
        left = []
        for node in waiting:
            if all(v in ready for v in [*node.input, *_subgraph_inputs(node)]):
                ordered.append(node)
                ready.update(node.output)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise ValueError("the graph has a cycle")
        waiting = left
    del graph.node[:]
    graph.node.extend(ordered)


def step_metadata(model: ModelProto, bindings: dict, gradients: dict, loss: str) -> None:
    """Writes the model-wide ``pam.*`` entries."""
    set_metadata(
        model,
        pam__loss=loss,
        pam__bindings=json.dumps(bindings),
        pam__gradients=json.dumps(gradients),
    )


def save(model: ModelProto, path: str | os.PathLike) -> Path:
    """Checks the model and writes it, making the folder if need be."""
    onnx.checker.check_model(model, full_check=True)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
