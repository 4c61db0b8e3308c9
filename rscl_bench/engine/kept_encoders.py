"""The encoders after every task, kept beside the record if the user wants them."""

from pathlib import Path

from rscl_bench.models.encoder import Encoder
from rscl_bench.models.encoder_file import FOLDER, EncoderDescription, write_encoder
from rscl_bench.tiles.store import file_digest


class KeptEncoders:
    """Writes the encoder after a task to ``encoders/NUMBER-TASK.safetensors``.

    An encoder is written before it is probed, so a resumed run writes the encoders again whose
    probing was lost, and finds the others in the folder.
    """

    def __init__(self, folder: Path, description: EncoderDescription, wanted: bool):
        """Remove the encoders of an earlier run in the folder, if none are wanted.

        Args:
            folder: Folder of the run's artefacts.
            description: Description of the encoder after the last task.
            wanted: Whether encoders are written.
        """
        self._description, self._wanted = description, wanted
        self._paths = {
            given.task: folder / FOLDER / f"{number}-{given.task}.safetensors"
            for number, given in enumerate(description.inputs, start=1)
        }
        if not wanted:
            self.remove()

    def remove(self) -> None:
        """Remove all encoders after tasks, and their folder."""
        for path in self._paths.values():
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def write(self, number: int, encoder: Encoder) -> None:
        """Write the encoder after a task, if encoders are wanted.

        Args:
            number: Number of tasks that the encoder was trained on.
            encoder: The encoder.

        Raises:
            ArtefactError: If the file cannot be written.
        """
        if self._wanted:
            description = self._description.after(number)
            write_encoder(self._paths[description.inputs[-1].task], encoder, description)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the kept files by task.

        Tasks that were trained before the encoders were wanted, or by the run that an extended run
        continues, have no file.
        """
        return {task: file_digest(path) for task, path in self._paths.items() if path.is_file()}
