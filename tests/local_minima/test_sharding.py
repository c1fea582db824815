"""Samples spread over eight simulated devices give the numbers of one."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, itertools, jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from globopt_jax import local_minima, networks
from globopt_jax.local_minima.passes import samples_in_chunks

meshes = [jax.make_mesh((8,), ("samples",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit)]
spread, explicit = (NamedSharding(mesh, PartitionSpec("samples")) for mesh in meshes)
rng = np.random.default_rng(0)
said = []
for m, widths in ((400, (6, 7, 5, 3)), (16, (6, 7, 5, 3))):
    X, Y = rng.normal(size=(m, widths[0])), rng.normal(size=(m, widths[-1]))
    W = [rng.normal(size=s) for s in itertools.pairwise(widths)]
    network = networks.feed_forward("relu")
    method = "gram" if m == 400 else "dual"
    Xs, Ys = jax.device_put(X, spread), jax.device_put(Y, spread)
    one = local_minima.tangent_projection(network, W, X, Y, method, memory=60_000)
    all8 = local_minima.tangent_projection(network, W, Xs, Ys, method, memory=60_000)
    chunks = samples_in_chunks(Xs, 80)
    shares = [local_minima.decompose(W, *data, method="gram") for data in ((X, Y), (Xs, Ys))] if m == 400 else []
    said.append({
        "devices": len(jax.devices()), "of a chunk": len(chunks.X[0].sharding.device_set),
        "shard": chunks.X[0].addressable_shards[0].data.shape[0], "chunk": chunks.X.shape[1],
        "one": float(one.value), "eight": float(all8.value), "ranks": [int(one.rank), int(all8.rank)],
        "apart": max(float(np.max(np.abs(a - b))) for a, b in zip(*(s.shares for s in shares))) if shares else 0.0,
    })
def tanh(W, X):
    return jax.numpy.tanh(X @ W[0]) @ W[1]
def numbers(X, Y):
    return [
        local_minima.tangent_projection(tanh, [W[0][:, :5], W[-1]], X, Y, "dual").value,
        local_minima.tangent_projection(network, W, X, Y, "gram").value,
        *local_minima.decompose(W, X, Y).shares[0],
    ]
data = [jax.device_put(a, explicit) for a in (X, Y)]
found = [numbers(X, Y), numbers(*data)]
with jax.set_mesh(meshes[1]):
    found.append(numbers(*data))
    assert int(local_minima.linear_units(W, X).n) == 3
print(json.dumps({"chunks": said, "explicit": np.max(np.abs(np.array(found) - found[0]))}))
"""


def test_eight_devices():
    environment = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["explicit"] <= 1e-10, "axes of the mesh that the compiler does not decide on"
    for said in found["chunks"]:
        assert said["devices"] == said["of a chunk"] == 8
        assert said["shard"] < said["chunk"], "a chunk is cut, not copied"
        assert said["eight"] == pytest.approx(said["one"], rel=1e-10)
        assert said["ranks"][0] == said["ranks"][1]
        assert said["apart"] <= 1e-10
