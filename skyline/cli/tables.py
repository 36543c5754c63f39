"""Tables of jobs, fronts, candidates and the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from skyline.cli.nearest import infeasible_lines
from skyline.cli.values import NO_SHARES, SHARE_UNITS, number, of_bound, percent, short
from skyline.schemas.answers import Value
from skyline.schemas.jobs import QUALITIES

if TYPE_CHECKING:
    from skyline.gates import Gate
    from skyline.schemas.answers import Candidate, Front, FrontObjective, Job
    from skyline.schemas.catalog import Catalog, Preset
    from skyline.schemas.datasets import DatasetOnWorker, RegisteredDataset
    from skyline.schemas.devices import Device
    from skyline.schemas.jobs import JobSpec
    from skyline.schemas.tables import RegisteredTable, TableColumn

COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "cancelling": "yellow", "queued": "dim"}
KNEE = "*"


def is_quality(objective: FrontObjective) -> bool:
    """Whether an objective is the error or accuracy, whatever its key."""
    share = objective.unit in SHARE_UNITS and objective.kind not in (None, *NO_SHARES)
    return objective.key in QUALITIES or share


def first_cost(objectives: Sequence[FrontObjective]) -> str:
    """Key of the first objective that is not the quality; fronts are sorted by it."""
    costs = [objective.key for objective in objectives if not is_quality(objective)]
    return (costs or [objective.key for objective in objectives])[0]


def front_table(front: Front) -> Table:
    """Members sorted by the first cost; the knee is marked."""
    unit = {objective.key: objective.unit for objective in front.objectives}
    table = Table(
        title=f"{front.kind} front, version {front.version}: {len(front.members)} networks", title_justify="left"
    )
    table.add_column("candidate")
    for objective in front.objectives:
        named = "" if unit[objective.key] in SHARE_UNITS else f" [{unit[objective.key]}]"
        table.add_column(Text(f"{objective.key}{named}\n{objective.kind or ''}"), justify="right")
    tested = any(member.test for member in front.members)
    if tested:
        table.add_column("error\non test", justify="right")
    table.add_column("")
    cost = first_cost(front.objectives)
    for member in sorted(front.members, key=lambda m: m.values[cost].value if cost in m.values else float("inf")):
        cells = [number(member.values[key]) if key in member.values else "" for key in unit]
        cells += [percent(member.test)] if tested else []
        knee = member.id == front.knee
        table.add_row(short(member.id), *cells, f"{KNEE} knee" if knee else "", style="bold" if knee else None)
    return table


def front_notes(front: Front, bounded: bool = False) -> list[str]:
    """What stands below the table; ``bounded``: the user asked for some of the members only."""
    notes = []
    if not front.members and front.infeasible is None:
        notes.append("no network meets these bounds" if bounded and front.version else "no network yet")
    if front.infeasible is not None:
        notes += infeasible_lines(front.infeasible)
    for objective in front.objectives:
        values = [member.values[objective.key] for member in front.members if objective.key in member.values]
        if values and values[0].kind == "predicted":
            notes.append(f"{objective.key} is predicted: {predicted_by(values[0])}")
    if front.hypervolume is not None:
        reference = ", ".join(f"{key} {value:g}" for key, value in front.reference_point.items())
        notes.append(f"hypervolume {front.hypervolume:.6g} up to {reference}")
    return notes


def predicted_by(value: Value) -> str:
    """By what, and how far it can be trusted."""
    told = value.model_extra or {}
    method = str(told.get("method", "a model"))
    if told.get("coefficients"):
        return f"{method}, {told['coefficients']}"
    power = f", {told['power_w']:g} W" if isinstance(told.get("power_w"), int | float) else ""
    if "held_out" not in told:
        return f"{method}{power}"
    by = f"{method}{power}, device {told.get('device')}"
    if not told["held_out"]:
        return f"{by}; never held against whole networks of this space"
    repeat = "" if told.get("tau_repeat") is None else f" (measured twice: {told['tau_repeat']:.2f})"
    return f"{by}; tau {told['tau']:.2f}{repeat}, off by {told['mape']:.1f} % on {told['held_out']} held-out networks"


def gate_lines(gate: Gate) -> list[str]:
    """What stands below the table of those that pass, or instead of it."""
    asked = ", ".join(requirement.text for requirement in gate.requirements)
    if gate.best is not None:
        count = f"{len(gate.passing)} of {gate.members} networks of the {gate.kind} front"
        return [f"{count} hold {asked}", f"the best of them, by {gate.rule}: {short(gate.best)}"]
    lines = [f"none of {gate.members} networks of the {gate.kind} front holds {asked}"]
    if not gate.members:
        why = f"'skyline candidates {short(gate.job)}' lists what was tried"
        if gate.nearest is not None:
            why = "no network holds the job's own bounds"
        lines = [f"the {gate.kind} front is empty ({why}), so nothing holds {asked}"]
    if gate.nearest is None:
        return lines
    lines.append(f"the nearest is {short(gate.nearest.id)}:")
    for miss in gate.misses:
        value = gate.nearest.values.get(miss.requirement.key)
        if value is None or miss.by is None:
            lines.append(f"  {miss.requirement.text}: it has no value")
            continue
        by = number(Value(value=miss.by, unit=value.unit, kind=value.kind))
        share = "" if miss.share is None else f", {of_bound(miss.share)} of the bound"
        how = f"which misses by {by}{share}" if miss.by else "and the bound itself does not count"
        lines.append(f"  {miss.requirement.text}: it has {number(value)}, {how}")
    return lines


def ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"


def first_line(text: str | None) -> str:
    """Of a reason that ends in the log's last lines: those are for ``skyline job`` and ``skyline log``."""
    return (text or "").partition("\n")[0]


def status(job: Job) -> Text:
    return Text(job.status, style=COLOURS.get(job.status, "cyan"))


def jobs_table(jobs: Iterable[Job]) -> Table:
    table = Table()
    for name in ("job", "name", "status"):
        table.add_column(name)
    table.add_column("done", justify="right")
    table.add_column("front", justify="right")
    table.add_column("created")
    table.add_column("note", overflow="fold")
    for job in jobs:
        counts = f"{job.front.final}" if job.front.final else f"{job.front.search} search" if job.front.search else ""
        unmet = "no network holds the bounds" if job.infeasible is not None else ""
        note = Text(first_line(job.reason or job.waiting_for) or unmet)
        table.add_row(
            short(job.id), Text(job.name), status(job), f"{100 * job.progress:.0f} %", counts, ago(job.created_at), note
        )
    return table


def job_lines(job: Job) -> list[Text]:
    """One job in full, as lines."""
    spec = job.spec
    pairs = [
        ("job", str(job.id)),
        ("name", job.name),
        ("status", f"{job.status} ({100 * job.progress:.0f} %, {job.phase})"),
        ("reason", job.reason or ""),
        ("waiting for", job.waiting_for or ""),
        ("searches", f"{spec.space.name} on {_ground(spec)} by {spec.algorithm.name}: {', '.join(spec.keys)}"),
        ("preset", spec.preset or ""),
        ("from", "" if spec.origin is None else f"the search of job {spec.origin}"),
        ("front", f"{job.front.search} found by the search, {job.front.final} verified"),
        ("labels", ", ".join(f"{key}={value}" for key, value in job.labels.items())),
        ("created", ago(job.created_at)),
        ("took", _took(job)),
    ]
    lines = [Text.assemble((f"{name:<12}", "dim"), value) for name, value in pairs if value]
    lines += [Text(line) for line in infeasible_lines(job.infeasible)] if job.infeasible is not None else []
    for attempt in job.attempts:
        end = attempt.end or "running"
        signal = f", signal {attempt.exit_signal}" if attempt.exit_signal else ""
        where = f"{attempt.worker} ({attempt.device}, {attempt.threads} threads)"
        lines.append(
            Text.assemble(
                ("attempt     ", "dim"),
                f"{attempt.kind} {attempt.number} on {where}: {end}{signal}",
                (f"  task {short(attempt.task)}", "dim"),
            )
        )
    return lines


def _ground(spec: JobSpec) -> str:
    """Where errors come from."""
    if spec.dataset is not None:
        return spec.dataset.called
    return f"table {next(one.settings['table'] for one in spec.objectives if one.from_table)}"


def _took(job: Job) -> str:
    if job.started_at is None or job.ended_at is None:
        return ""
    return f"{(job.ended_at - job.started_at).total_seconds():.0f} s"


def candidates_table(candidates: Sequence[Candidate], keys: Sequence[str]) -> Table:
    table = Table()
    table.add_column("candidate")
    table.add_column("status")
    for key in keys:
        table.add_column(key, justify="right")
    table.add_column("note", overflow="fold")
    for candidate in candidates:
        cells = [f"{number(value)} {value.kind}" if (value := candidate.values.get(key)) else "" for key in keys]
        table.add_row(short(candidate.id), candidate.status, *cells, Text(first_line(candidate.failure)))
    return table


def datasets_table(datasets: Iterable[RegisteredDataset]) -> Table:
    """Registered data sets and who has them; workers that are gone are left out."""
    table = Table()
    for name in ("name", "made of", "images", "classes", "workers"):
        table.add_column(name, overflow="fold")
    for dataset in datasets:
        made = [
            str(dataset.dataset["name"]),
            *(str(dataset.dataset[key]) for key in ("path",) if key in dataset.dataset),
        ]
        held = [on_worker(each) for each in dataset.workers if each.live] or ["no live worker"]
        cells = (" ".join(made), images(dataset), str(dataset.classes or ""), "\n".join(held))
        table.add_row(dataset.name, *(Text(cell) for cell in cells))
    return table


def images(dataset: RegisteredDataset) -> str:
    """How many images of which shape: ``240 train + 60 test of 3x64x64``; as much of it as is known."""
    counted = " + ".join(f"{count:,} {part}" for part, count in (dataset.images or {}).items())
    shape = "x".join(map(str, dataset.input or []))
    return " of ".join(filter(None, (counted, shape)))


def on_worker(part: DatasetOnWorker) -> str:
    """``worker-1: present``, or why it is not there."""
    state = "present" if part.present else "fetched at its first use" if part.downloadable else f"absent. {part.note}"
    return f"{part.worker}: {state}"


def registered_tables(tables: Iterable[RegisteredTable]) -> Table:
    """Tables of values by architecture."""
    table = Table()
    for name in ("name", "space", "rows", "columns", "SHA-256"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for one in tables:
        listed = "\n".join(column_line(column) for column in one.columns)
        cells = (one.name, str(one.space["name"]), rows_line(one), listed, one.sha256[:12])
        table.add_row(*(Text(cell) for cell in cells))
    return table


def rows_line(table: RegisteredTable) -> str:
    """``15,284``, and how many the space has besides."""
    return f"{table.rows:,}" + (f", {table.missing:,} missing" if table.missing else "")


def column_line(column: TableColumn) -> str:
    """``raspi4_ms: ms, 3.2 to 98, the less the better``."""
    better = "less" if column.direction == "minimize" else "more"
    return f"{column.name}: {column.unit}, {column.low:.6g} to {column.high:.6g}, the {better} the better"


def read_as(column: TableColumn) -> str | None:
    """``acc: read as accuracy, 32 % to 92 %``; None for a column that says neither error nor accuracy."""
    if column.says is None:
        return None
    unit = " %" if column.unit == "%" else ""
    line = f"{column.name}: read as {column.says}, {column.low:.6g}{unit} to {column.high:.6g}{unit}"
    other = f"; an accuracy is --column {column.name}:{column.unit}:max"
    return line + (other if column.says == "error" else "")


def trust(device: Device) -> str:
    """How well held-out networks were predicted, in a sentence."""
    said = []
    for what, found in (("latency", device.latency_validation), ("energy", device.energy_validation)):
        for each in found:
            repeat = "" if each.tau_repeat is None else f" (measured twice: {each.tau_repeat:.2f})"
            whose = f"{what} of {each.n} held-out networks of {each.space}"
            said.append(f"{whose}: tau {each.tau:.2f}{repeat}, off by {each.mape:.1f} %")
    return "; ".join(said) or "never held against whole networks"


def tau(device: Device) -> str:
    """The same in a few words, a line for each."""
    lines = []
    for what, found in (("latency", device.latency_validation), ("energy", device.energy_validation)):
        for each in found:
            repeat = "" if each.tau_repeat is None else f" ({each.tau_repeat:.2f})"
            lines.append(f"{what}, {each.space}: {each.tau:.2f}{repeat}, {each.mape:.1f} %")
    return "\n".join(lines) or "unknown"


def devices_table(devices: Iterable[Device]) -> Table:
    table = Table(title="devices", title_justify="left")
    for name in ("name", "what it is", "predicts", "parts", "tau (measured twice), error", "since"):
        table.add_column(name, overflow="fold")
    for device in devices:
        cells = (device.name, device.device, ", ".join(device.predicts), str(device.parts), tau(device))
        table.add_row(*(Text(cell) for cell in cells), ago(device.created_at))
    return table


def device_lines(device: Device) -> list[Text]:
    """One device in full, as lines, its table left out."""
    protocol = device.protocol
    threads = "" if protocol.threads is None else f", {protocol.threads} threads"
    pairs = [
        ("device", device.name),
        ("is", device.device),
        ("protocol", f"batch {protocol.batch}{threads}, {protocol.dtype}, {protocol.runtime}"),
        ("predicts", f"{', '.join(device.predicts)} from {device.parts} parts"),
        ("power", "" if device.power_w is None else f"{device.power_w:g} W busy"),
        ("how well", trust(device)),
        ("measured", device.measured_at or ""),
        ("uploaded", ago(device.created_at)),
        ("sha256", device.sha256),
        ("notes", device.notes),
    ]
    return [Text.assemble((f"{name:<12}", "dim"), value) for name, value in pairs if value]


def catalog_tables(catalog: Catalog) -> list[Table]:
    tables = []
    for kind in ("spaces", "algorithms", "objectives", "datasets"):
        table = Table(title=kind, title_justify="left")
        table.add_column("name")
        table.add_column("what it is", overflow="fold")
        table.add_column("settings", overflow="fold")
        table.add_column("note", overflow="fold")
        for entry in getattr(catalog, kind):
            absent = {name: part for name, part in entry.workers.items() if part.get("present") is False}
            notes = [f"missing on {name}: {part.get('hint', '')}" for name, part in absent.items()]
            if "plugin" in entry.facts:
                notes.insert(0, f"plug-in {entry.facts['plugin']}, on {', '.join(sorted(entry.workers))}")
            settings = ", ".join(entry.settings.get("properties", {}))
            table.add_row(entry.name, Text(entry.summary), Text(settings), Text("\n".join(notes)))
        tables.append(table)
    if catalog.presets:
        tables.append(_presets_table(catalog.presets))
    if catalog.devices:
        tables.append(devices_table(catalog.devices))
    workers = Table(title="workers", title_justify="left")
    for name in ("name", "device", "threads", "memory GB", "queues", "seen"):
        workers.add_column(name)
    for worker in catalog.workers:
        seen = ago(worker.seen_at) + ("" if worker.live else " (gone)")
        cells = (
            worker.name,
            worker.device,
            str(worker.threads),
            f"{worker.memory_gb:.1f}",
            ", ".join(worker.queues),
            seen,
        )
        workers.add_row(*cells, style=None if worker.live else "dim")
    return [*tables, workers, *_plugin_tables(catalog)]


def _presets_table(presets: Sequence[Preset]) -> Table:
    """With the names of the fields that each fills in; their values are in the JSON."""
    table = Table(title="presets", title_justify="left")
    for name in ("name", "what it is", "fills in", "source"):
        table.add_column(name, overflow="fold")
    for preset in presets:
        parts = "\n".join(f"{part}: {', '.join(fields)}" for part, fields in preset.job.items())
        table.add_row(Text(preset.name), Text(preset.summary), Text(parts), Text(preset.source))
    return table


def _plugin_tables(catalog: Catalog) -> list[Table]:
    """What became of users' plug-ins, where a worker has any."""
    table = Table(title="plug-ins", title_justify="left")
    for name in ("name", "worker", "adds", "error"):
        table.add_column(name, overflow="fold")
    for worker in catalog.workers:
        for plugin in worker.plugins:
            error = Text(plugin.error or "", style="red")
            table.add_row(Text(plugin.name), worker.name, Text(", ".join(plugin.adds)), error)
    return [table] if table.row_count else []
