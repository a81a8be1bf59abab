"""Draws ../../docs/watchdog-growth.png from growth.json. Needs matplotlib (requirements.txt)."""
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

here = pathlib.Path(__file__).parent
curve = json.loads((here / "growth.json").read_text())["curve"]
rows = [point["rows"] for point in curve]
figure, axes = plt.subplots(figsize=(7, 4), dpi=100)
axes.plot(rows, [point["idle_ms"] for point in curve], marker="o", label="idle poll, psn.lease (ms)")
axes.plot(rows, [point["rescue_us_per_post"] / 1000 for point in curve], marker="s", label="rescue of one post (ms)")
axes.plot(rows, [point["naive_poll_ms"] for point in curve], marker="x", linestyle="--", label="poll of a naive loop (ms)")
axes.set(xscale="log", yscale="log", xlabel="posts in the table", ylabel="milliseconds", title="Cost as the table grows")
axes.grid(True, which="major", alpha=0.3)
axes.legend()
figure.tight_layout()
figure.savefig(here / "../../docs/watchdog-growth.png", metadata={"Software": None})
