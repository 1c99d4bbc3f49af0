"""Models and images by the names that the explorer's controls have for them."""

from itertools import count
from pathlib import Path

from rollout.demo.samples import load_masks, sample_names, sample_path
from rollout.files import whole_file
from rollout.models.images import load_image
from rollout.models.load import load_model
from rollout.models.model import ImageSource, Model, check_model
from rollout.names import file_name

GIVEN_IMAGE = "the given image"


class Named:
    """What was given is kept, and of all other models the last.

    Attributes:
        images: the names of those that can be chosen.

    Args:
        folder: where uploaded files go.
    """

    def __init__(self, folder: Path) -> None:
        self._given_models: dict[str, Model] = {}
        self._given_images: dict[str, ImageSource] = {}
        self.images = sample_names()
        self._folder = folder
        self._loaded: tuple[str, Model] | None = None

    @property
    def given_models(self) -> list[str]:
        """The names of those that `load_model` does not know."""
        return list(self._given_models)

    def name_model(self, model: Model | str) -> str:
        """The name of a model; one that was given is known by it from now on."""
        if isinstance(model, str):
            return model
        check_model(model)
        names = (model.name if number == 1 else f"{model.name} ({number})" for number in count(1))
        name = next(name for name in names if self._given_models.get(name, model) is model)
        self._given_models[name] = model
        return name

    def name_image(self, image: ImageSource) -> str:
        """The name of an image; it can be chosen by it from now on."""
        name = str(image)
        if not isinstance(image, str | Path):
            names = (f"{GIVEN_IMAGE}{f' ({one})' * (one > 1)}" for one in count(1))
            name = next(one for one in names if self._given_images.get(one, image) is image)
            self._given_images[name] = image
        if name not in self.images:
            self.images.append(name)
        return name

    def add_upload(self, name: str, content: bytes) -> str:
        """Keep an uploaded file; returns its name as an image.

        Raises:
            ValueError: it is no image.
        """
        path = self._free(Path(name.replace("\\", "/")).name, content)
        with whole_file(path) as partial:
            partial.write_bytes(content)
            try:
                load_image(partial)
            except ValueError as error:
                raise ValueError(str(error).replace(str(partial), name)) from error
        if str(path) not in self.images:
            self.images.append(str(path))
        return str(path)

    def _free(self, name: str, content: bytes) -> Path:
        """Where an upload goes: never over another image of that name."""
        folder, stem, end = self._folder / "uploads", file_name(Path(name).stem), Path(name).suffix
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        paths = (folder / f"{name}{end}" for name in numbered)
        return next(p for p in paths if not p.exists() or p.read_bytes() == content)

    def model_of(self, name: str) -> Model:
        if name in self._given_models:
            return self._given_models[name]
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = name, load_model(name)
        return self._loaded[1]

    def image_of(self, name: str) -> tuple[ImageSource, dict]:
        """The image and its answer key."""
        if name in self._given_images:
            return self._given_images[name], {}
        path = sample_path(name)
        return path, load_masks(path) if name in sample_names() else {}
