"""ONNX files: exported from Keras, scikit-learn and XGBoost, and run on the CPU by ONNX Runtime.

The same model gives the same bytes in every new process. The first dimension of every input is the batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.errors import ModelError

if TYPE_CHECKING:
    import keras

BATCH = "batch"  # name of the free dimension
OUTPUT = "probabilities"
VECTOR = "vector"  # input of a classifier
REMEDY = "run `dvc checkout` or `dvc repro`"  # of a damaged file
EXTERNAL = b"location"  # key in an ONNX file that precedes the path of external weights


def from_keras(model: keras.Model) -> bytes:
    """Return the ONNX file of a Keras model (through tf2onnx): its inputs by name to `probabilities`."""
    import onnx

    model({tensor.name: np.zeros((1, *tensor.shape[1:]), np.float32) for tensor in model.inputs})  # Keras needs a call
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "model.onnx")
        model.export(str(path), format="onnx", verbose=False)
        exported = onnx.load(str(path))
    return _named(exported, exported.graph.output[0].name)


def from_svm(pipeline: Any, n_values: int) -> bytes:
    """Return the ONNX file of a pipeline that ends in scikit-learn's SVC or LogisticRegression (through skl2onnx).

    It maps `vector` [shape=(chunks, n_values)] to `probabilities`, the softmax of the decision values.
    """
    import onnx
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    types = [(VECTOR, FloatTensorType([None, n_values]))]
    options = {"zipmap": False, "raw_scores": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # skl2onnx reads attributes that scikit-learn deprecates
        exported = to_onnx(pipeline, initial_types=types, options={id(pipeline): options}, target_opset=17)
    scores = exported.graph.output[1].name
    if not hasattr(pipeline[-1], "support_"):  # logistic regression: these are probabilities
        return _named(exported, scores)
    if len(pipeline.classes_) == 2:  # skl2onnx swaps the signs: github.com/onnx/sklearn-onnx/issues/990
        exported.graph.node.append(onnx.helper.make_node("Neg", [scores], ["negative"]))
        scores = "negative"
    exported.graph.node.append(onnx.helper.make_node("Softmax", [scores], ["softmax"], axis=1))
    exported.graph.output[1].name = "softmax"
    return _named(exported, "softmax")


def from_xgboost(estimator: Any, n_values: int) -> bytes:
    """Return the ONNX file of an `xgboost.XGBClassifier` (through onnxmltools): `vector` to `probabilities`."""
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    exported = convert_xgboost(estimator, initial_types=[(VECTOR, FloatTensorType([None, n_values]))])
    return _named(exported, exported.graph.output[1].name)


def from_text(file_name: str, constants: Mapping[str, npt.NDArray[Any]], **sizes: int) -> bytes:
    """Return the ONNX file of a graph of this folder as text, with its constants by name; `sizes` replaces names."""
    import onnx

    text = Path(__file__).with_name(file_name).read_text(encoding="utf-8")
    for name, size in sizes.items():
        text = text.replace(name, str(size))
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def with_outputs(model: bytes, positions: npt.NDArray[np.int64], n_outputs: int) -> bytes:
    """Return a classifier's ONNX file with `n_outputs` outputs: its own at `positions`, 0 elsewhere."""
    import onnx

    graph = onnx.load_from_string(model)
    for node in graph.graph.node:
        node.output[:] = ["own" if name == OUTPUT else name for name in node.output]
    matrix = np.eye(n_outputs, dtype=np.float32)[positions]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(matrix, "positions"))
    graph.graph.node.append(onnx.helper.make_node("MatMul", ["own", "positions"], [OUTPUT]))
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = n_outputs
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString(deterministic=True))


def session(model: Path | bytes, sha256: str | None = None, *, optimised: bool = False) -> Any:
    """Return an `onnxruntime.InferenceSession` of an ONNX file or of its bytes; threads may share it.

    It uses as many threads as the environment variable OMP_NUM_THREADS says (0: one per core). A graph with large
    convolutions is faster `optimised` for the processor; a small one takes longer to optimise than to run.

    Raises ModelError if the file cannot be read, has another SHA-256 than `sha256` or cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised too; the log could send control characters to a terminal
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    try:
        data = model if isinstance(model, bytes) else model.read_bytes()
        if sha256 not in {None, hashlib.sha256(data).hexdigest()}:
            raise ValueError("its SHA-256 differs from that in its card")
        if EXTERNAL in data:  # the SHA-256 does not cover other files
            raise ValueError("it has its weights in another file")
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds
        name = "the model" if isinstance(model, bytes) else model
        raise ModelError(f"{name} cannot be loaded ({error}): {REMEDY}") from error


def run(
    session: Any, inputs: Mapping[str, npt.NDArray[np.float32]], name: str = "the model"
) -> npt.NDArray[np.float32]:
    """Return the first output of a session for inputs by name.

    Raises ModelError, with `name`, if the model refuses the inputs, or returns NaN or infinity.
    """
    try:
        output: npt.NDArray[np.float32] = np.asarray(session.run(None, dict(inputs))[0], np.float32)
    except Exception as error:  # onnxruntime raises many kinds
        raise ModelError(f"{name} cannot be run ({error}): {REMEDY}") from error
    if not np.isfinite(output).all():
        raise ModelError(f"{name} returned NaN or infinity: {REMEDY}")
    return output


def _named(exported: Any, output: str) -> bytes:
    """Return a model with the one output `probabilities`, a named batch dimension and canonical nodes."""
    import onnx

    result = next(value for value in exported.graph.output if value.name == output)
    result.name = OUTPUT
    for value in (*exported.graph.input, result):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    nodes, constants = _canonical(exported.graph, output)
    exported.graph.CopyFrom(onnx.helper.make_graph(nodes, "model", list(exported.graph.input), [result], constants))
    onnx.checker.check_model(exported)
    return bytes(exported.SerializeToString(deterministic=True))


def _canonical(graph: Any, output: str) -> tuple[list[Any], list[Any]]:
    """Return nodes and constants in an order and with names that do not depend on the exporter.

    tf2onnx orders and names them differently each time. The names are digests of what is computed, so equal nodes are
    merged; nodes are sorted by depth and name. The tensor `output` is named `probabilities`.
    """
    from onnx import numpy_helper

    names = {"": "", **{value.name: value.name for value in graph.input}}
    depths = dict.fromkeys(names, 0)
    constants, nodes = {}, {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        names[tensor.name] = tensor.name = _digest(array.dtype, array.shape, array.tobytes())
        constants[tensor.name], depths[tensor.name] = tensor, 0
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        node.name = _digest(node.op_type, list(node.input), attributes)
        names |= {name: f"{node.name}_{i}" for i, name in enumerate(node.output) if name}
        node.output[:] = [names[name] for name in node.output]
        depth = 1 + max((depths[name] for name in node.input), default=0)
        depths |= dict.fromkeys(node.output, depth)
        nodes[depth, node.name] = node
    for node in nodes.values():
        for tensors in (node.input, node.output):
            tensors[:] = [OUTPUT if name == names[output] else name for name in tensors]
    return [nodes[key] for key in sorted(nodes)], [constants[name] for name in sorted(constants)]


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
