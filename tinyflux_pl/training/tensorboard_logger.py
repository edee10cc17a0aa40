"""TensorBoard as the record of a whole run: scalars, pictures, texts and hparams."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.training.run_logger import Ending, Plain, Rows, RunFacts, RunLogger, Samples


class TensorBoardRun(TensorBoardLogger, RunLogger):
    """Event files in `save_dir`/`version`; the configuration is compared in the HParams tab."""

    def __init__(self, save_dir: str, version: str = "tensorboard") -> None:
        super().__init__(save_dir, name="", version=version, default_hp_metric=False)
        self._configuration: dict[str, Plain] = {}
        self._results: dict[str, float] = {}

    @rank_zero_only
    def begin(self, facts: RunFacts) -> None:
        """Configuration, provenance and the preflight as texts."""
        provenance = {f"provenance/{key}": value for key, value in facts.provenance.items()}
        self._configuration = {**facts.configuration, **provenance}
        texts = {names.PREFLIGHT.of(table=table): rows for table, rows in facts.tables}
        texts["run/configuration"] = [(k, str(v)) for k, v in self._configuration.items()]
        for tag, rows in texts.items():
            self.experiment.add_text(tag, _table(("item", "value"), rows), 0)

    @rank_zero_only
    def log_samples(self, samples: Samples) -> None:
        """The sheet as a picture; step, seed and captions as a text."""
        sheet = np.asarray(samples.sheet)
        self.experiment.add_image(names.GRID.pattern, sheet, samples.step, dataformats="HWC")
        rows = [
            (f"step {samples.step}, seed {samples.seed}", caption) for caption in samples.captions
        ]
        text = _table(("drawn", "caption"), rows)
        self.experiment.add_text(names.SAMPLES.pattern, text, samples.step)

    @rank_zero_only
    def log_results(self, results: Mapping[str, float]) -> None:
        """Kept until the end: hparams are written once."""
        self._results = dict(results)

    @rank_zero_only
    def finish(self, ending: Ending) -> None:
        """Configuration and closing results as hparams, the state as a text."""
        state = [(names.STATE.pattern, ending.state), (names.ERROR.pattern, ending.error)]
        self.experiment.add_text(names.STATE.pattern, _table(("item", "value"), state), 0)
        results = {**self._results, names.EXIT_CODE.pattern: float(ending.exit_code)}
        self.log_hyperparams(dict(self._configuration), results)
        self.finalize("success" if ending.state == "finished" else "failed")


def _table(columns: tuple[str, str], rows: Rows) -> str:
    """Markdown, as TensorBoard shows texts."""
    lines = [columns, ("---", "---"), *rows]
    escaped = (tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in lines)
    return "\n".join(f"| {left} | {right} |" for left, right in escaped)
