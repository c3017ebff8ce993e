"""The public function: references laid over a target by their images, or as the user says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike

from spahgc._keys import UNS, Obs, Uns
from spahgc._logging import warn
from spahgc._slides.split import check_single_slide, located_slides, placed_table, placed_tables
from spahgc._slides.stored import stored_slides
from spahgc._slides.tables import is_spatialdata, with_table
from spahgc._validate import check_anndata, quoted
from spahgc.pp._register.given import check_matrix, check_names, matrix_of_landmarks, matrix_to_system
from spahgc.pp._register.pairs import PairRegistration, judge_structures, register_pairs
from spahgc.pp._register.picture import Matrix, Picture
from spahgc.pp._register.record import DIFFERENT, SAME, UNKNOWN, registration_record
from spahgc.pp._register.slides import NoImageError, SlideToRegister, Source, slide_picture
from spahgc.pp._register.structure import NoTissueError, find_structure

if TYPE_CHECKING:
    from spatialdata import SpatialData

GIVEN, LANDMARKS, SYSTEM = "given matrix", "landmarks", "coordinate system"
"""Methods of transformations that the user has."""


def register(
    target: AnnData | SpatialData,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData],
    *,
    image: Mapping[str, Source] | None = None,
    transforms: Mapping[str, ArrayLike] | None = None,
    landmarks: Mapping[str, Sequence[ArrayLike]] | None = None,
    coordinate_system: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Lay references over a target that are sections of one block of tissue, by their H&E images alone.

    A small picture of each section is taken (20 um a pixel): of the hires or lowres image that ``uns["spatial"]`` holds,
    of the image of a SpatialData, or of the image that is named or passed. All angles are tried, both sides up, where a
    resolution is not known also scales from 0.7 to 1.4. Windows of 560 um then vote for an affine transformation, and for
    a smooth bend where that makes the structure agree better. Counts are not looked at.

    Sections that do not belong together are recognised: the quality is how much better the structure inside the tissue
    agrees at the registered place than at any other nearby (mean of before and after the bend), times the overlap of
    the tissues (intersection over union). Below 0.125, or where
    one section would have to be stretched by more than a third, a pair is not used.

    Parameters
    ----------
    target
        A slide with spot centres in ``obsm["spatial"]``, or a SpatialData. It needs no counts.
    refs
        The references, one or several. They are not changed.
    image
        Full-resolution images by the name of the slide, for slides that hold none: a path, a uint8 array of height x
        width x 3, or whatever :func:`spahgc.image.open_image` takes. Only a small version is read, region by region.
    transforms
        Transformations that are known, by the name of the reference, and are taken instead: 3 x 3 matrices that take
        ``(x, y, 1)`` in full-resolution pixels of the reference to those of the target.
    landmarks
        Points that are known on both, by the name of the reference: two arrays, points x 2, on the reference and on the
        target, full-resolution pixels. Two or three pairs give a similarity, four or more an affine transformation.
    coordinate_system
        Coordinate system in which the images of target and references are aligned already, all of them SpatialData.
    table_key
        Key of the table of every SpatialData; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into `target`; of a SpatialData one that shares all but the table.

    Returns
    -------
    ``None``, or the copy. Written is ``uns["spahgc"]["registration"]``, entries in the order of ``references``:

    - ``target``, ``references``: names of the slides;
    - ``matrix``: references x 3 x 3, from full-resolution pixels of the reference to those of the target;
    - ``bend``: for references that have one, by their place in the list, ``displacement`` (rows x columns x 2, pixels of
      the target), ``spacing`` and ``origin`` of its grid;
    - ``quality``, and its factors ``structure`` and ``outline``, 0 to 1; NaN where no picture tells; ``min_quality``;
    - ``used``, and ``why`` not;
    - ``method``: ``"affine"``, ``"affine and bend"``, ``"given matrix"``, ``"landmarks"``, ``"coordinate system"``,
      ``"none"``;
    - ``patient``: whether ``obs["patient"]`` of both is the ``"same"``, ``"different"`` or ``"unknown"``. Nothing is
      refused for it.

    Raises
    ------
    KeyError
        If a slide is named that is not there, or an image is not in `coordinate_system`.
    ValueError
        If no image of a slide is known, a transformation is singular, not finite or not 3 x 3, puts all spots outside
        the target, or is given twice; or if the target shows no tissue.

    Warns
    -----
    UserWarning
        If references are not used, and why.

    See Also
    --------
    spahgc.pl.registration : draws them on each other.

    Notes
    -----
    The limit of the quality was set in view of four cohorts. Sections of breast cancer and olfactory bulb of one block gave
    0.14 to 0.29, sections of other patients, animals and tissues at most 0.11. Spinal cords of one mouse are near the limit or
    below it: what is not used may belong together all the same.

    Examples
    --------
    >>> import numpy as np
    >>> import spahgc as sp
    >>> target, other = sp.datasets.simulated(2, n_patients=1, n_spots=200, n_genes=20)
    >>> moved = target.copy()
    >>> moved.obs["slide"] = "turned"
    >>> library = moved.uns["spatial"].pop("P1S1")
    >>> library["images"] = {name: np.rot90(picture, 2).copy() for name, picture in library["images"].items()}
    >>> moved.uns["spatial"]["turned"] = library
    >>> side = library["images"]["hires"].shape[1::-1] / np.float64(library["scalefactors"]["tissue_hires_scalef"])
    >>> moved.obsm["spatial"] = side - moved.obsm["spatial"]
    >>> sp.pp.register(target, moved)
    >>> record = target.uns["spahgc"]["registration"]
    >>> record["references"], record["used"].tolist()
    (['turned'], [True])
    """
    fixed, moving = _slides(target, refs, table_key)
    names = [fixed.name, *moving]
    images = check_names(image, "image=", names)
    given = _given_matrices(fixed, moving, transforms, landmarks, coordinate_system)
    pictures = _pictures({fixed.name: fixed, **moving}, images, needed=[n for n in moving if n not in given])
    _check_target(fixed, pictures, searched=len(given) < len(moving))
    pairs = dict(_judged(fixed, moving, given, pictures))
    searched = [(fixed.name, name) for name in moving if name not in given]
    pairs |= {name: pair for (_, name), pair in register_pairs(pictures, searched).items()}
    pairs = {name: pairs[name] for name in moving}
    _warn_of_unused(fixed.name, pairs)
    patients = {name: _same_patient(fixed.table, slide.table) for name, slide in moving.items()}
    table = placed_table(target, table_key, "the target", write=True)
    table = table.copy() if copy else table
    entries = dict(table.uns.get(UNS, {}))
    entries[Uns.registration] = registration_record(fixed.name, pairs, patients)
    table.uns[UNS] = entries
    return with_table(target, table, table_key) if copy else None


def _slides(
    target: AnnData | SpatialData, refs: Any, table_key: str | None
) -> tuple[SlideToRegister, dict[str, SlideToRegister]]:
    """Target and references with their names; refuses two of one name."""
    table = placed_table(target, table_key, "the target")
    check_anndata(table, "the target")
    check_single_slide(table, "the target")
    (target_name,) = located_slides([table], "target")
    refs = stored_slides(refs, "reference")
    holders = [refs] if isinstance(refs, AnnData) or is_spatialdata(refs) else list(refs)
    placed = located_slides(placed_tables(holders, table_key, "reference"), "reference")
    if target_name in placed:
        raise ValueError(
            f'target and a reference are both called "{target_name}". Give each its own name: '
            f'adata.obs["{Obs.slide}"] = "..."; and pass no slide twice.'
        )
    slides = {name: SlideToRegister(name, slide, holders[place]) for name, (place, slide) in placed.items()}
    return SlideToRegister(target_name, table, target), slides


def _given_matrices(
    fixed: SlideToRegister,
    moving: Mapping[str, SlideToRegister],
    transforms: Mapping[str, ArrayLike] | None,
    landmarks: Mapping[str, Sequence[ArrayLike]] | None,
    coordinate_system: str | None,
) -> dict[str, tuple[str, Matrix]]:
    """Method and matrix of each reference for which the user has one."""
    matrices = check_names(transforms, "transforms=", list(moving))
    points = check_names(landmarks, "landmarks=", list(moving))
    twice = [name for name in matrices if name in points]
    if twice:
        raise ValueError(f"both transforms= and landmarks= are given for {quoted(twice)}. Pass one of them.")
    given = {name: (GIVEN, check_matrix(matrix, f'transforms["{name}"]')) for name, matrix in matrices.items()}
    given |= {name: (LANDMARKS, matrix_of_landmarks(pair, f'landmarks["{name}"]')) for name, pair in points.items()}
    if coordinate_system is not None:
        to_target = np.linalg.inv(matrix_to_system(fixed, coordinate_system))
        for name, slide in moving.items():
            if name not in given:
                given[name] = SYSTEM, to_target @ matrix_to_system(slide, coordinate_system)
    return given


def _pictures(
    slides: Mapping[str, SlideToRegister], images: Mapping[str, Source], needed: Sequence[str]
) -> dict[str, Picture]:
    """Pictures of the slides; one without an image is left out where its transformation is known."""
    pictures = {}
    target = next(iter(slides))
    for name, slide in slides.items():
        try:
            pictures[name] = slide_picture(slide, images.get(name))
        except NoImageError:
            if name in needed or (name == target and needed):
                raise
    return pictures


def _check_target(fixed: SlideToRegister, pictures: Mapping[str, Picture], *, searched: bool) -> None:
    """Refuse a target on which nothing can be laid."""
    if not searched:
        return
    try:
        find_structure(pictures[fixed.name])
    except NoTissueError as error:
        raise ValueError(
            f'the target, slide "{fixed.name}", cannot be registered: {error}. Pass image= with the H&E image, or transforms= '
            "or landmarks=."
        ) from error


def _judged(
    fixed: SlideToRegister,
    moving: Mapping[str, SlideToRegister],
    given: Mapping[str, tuple[str, Matrix]],
    pictures: Mapping[str, Picture],
) -> Iterable[tuple[str, PairRegistration]]:
    """Given transformations with the quality that the pictures say they have; refuses those that miss the target."""
    for name, (method, matrix) in given.items():
        xy = moving[name].xy @ matrix[:2, :2].T + matrix[:2, 2]
        low, high = fixed.xy.min(0), fixed.xy.max(0)
        room = (high - low).max()
        if not ((xy >= low - room) & (xy <= high + room)).all(1).any():
            raise ValueError(
                f'the transformation of "{name}" ({method}) puts all its spots outside the target: to x from {xy[:, 0].min():.4g} '
                f"to {xy[:, 0].max():.4g} and y from {xy[:, 1].min():.4g} to {xy[:, 1].max():.4g}, where the target's spots "
                f"lie from {low[0]:.4g} to {high[0]:.4g} and from {low[1]:.4g} to {high[1]:.4g}. It must take full-resolution "
                "pixels of the reference to those of the target."
            )
        quality, structure, outline = np.nan, np.nan, np.nan
        if name in pictures and fixed.name in pictures:
            try:
                here, there = find_structure(pictures[fixed.name]), find_structure(pictures[name])
                found = judge_structures(here, there, matrix)
                quality, structure, outline = found.quality, found.structure, found.outline
            except NoTissueError:
                pass  # nothing to judge by, and the user knows better
        yield name, PairRegistration(matrix, quality, True, method, "", structure, outline)


def _same_patient(one: AnnData, other: AnnData) -> str:
    """Whether two slides name one patient."""
    names = [
        set(table.obs[Obs.patient].dropna().astype(str)) if Obs.patient in table.obs else set()
        for table in (one, other)
    ]
    if not all(names):
        return UNKNOWN
    return SAME if names[0] & names[1] else DIFFERENT


def _warn_of_unused(target: str, pairs: Mapping[str, PairRegistration]) -> None:
    unused = {name: pair.why for name, pair in pairs.items() if not pair.used}
    if unused:
        reasons = "; ".join(f'"{name}": {why}' for name, why in unused.items())
        warn(
            f'{len(unused)} of {len(pairs)} references are not used with "{target}": {reasons}. If they belong together, pass '
            "transforms= or landmarks=.",
            stacklevel=3,
        )
