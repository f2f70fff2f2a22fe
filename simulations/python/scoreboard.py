"""Draws the scoreboard from its Parquet file: what each attack reaches on each system, and the guess by the prior.

    python scoreboard.py scoreboard.parquet text average_precision scoreboard.png
"""

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pyarrow.compute as pc
import pyarrow.parquet as pq


def main():
    source, workload, score, target = sys.argv[1:5]
    table = pq.read_table(source)
    shown = pc.and_(pc.equal(table["workload"], workload), pc.equal(table["score"], score))
    lines = table.filter(shown).to_pylist()
    if not lines:
        known = sorted(set(zip(table["workload"].to_pylist(), table["score"].to_pylist())))
        sys.exit(f"nothing for {workload} and {score}; there is: {known}")
    systems = list(dict.fromkeys(line["system"] for line in lines))
    attacks = list(dict.fromkeys(line["attack"] for line in lines))
    width = 0.8 / len(attacks)
    figure, axes = plt.subplots(figsize=(10, 5.5), layout="constrained")
    for place, attack in enumerate(attacks):
        own = [line for line in lines if line["attack"] == attack]
        left = [systems.index(line["system"]) - 0.4 + (place + 0.5) * width for line in own]
        value = [line["value"] for line in own]
        below = [max(line["value"] - line["low"], 0) for line in own]
        above = [max(line["high"] - line["value"], 0) for line in own]
        axes.bar(left, value, width * 0.92, yerr=[below, above], capsize=2, label=attack)
        prior = [line["prior"] for line in own]
        ends = [x - width * 0.46 for x in left], [x + width * 0.46 for x in left]
        axes.hlines(prior, *ends, color="black", label="prior alone" if place == 0 else None)
    axes.set_xticks(range(len(systems)), systems)
    axes.set_ylabel(f"{score.replace('_', ' ')}, 1 is everything")
    axes.set_title(f"What attacks make of {workload} on each system")
    axes.legend(fontsize="small")
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main()
