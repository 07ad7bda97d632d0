"""What makes an image's answer worth less: too few pixels, blur, not the kind it was made for."""

from collections.abc import Mapping

from ensemble.profile import Profile
from serving.schemas import ImageWarning


def warnings_of(
    size: tuple[int, int],
    needed: int,
    statistics: Mapping[str, float],
    profile: Profile | None,
    novel: bool | None,
) -> list[ImageWarning]:
    """Warn of an image; none where nothing is wrong with it.

    Args:
        size: width and height as sent, upright, in pixels.
        needed: side of the largest square that a member sees, in pixels.
        statistics: of the pixels of the profile's member, by `ensemble.profile.measure`; not read
            without a profile.
        profile: the bundle's; None: blur is not judged.
        novel: unlike the training images; None where nothing was measured.
    """
    checks = (
        _low_resolution(size, needed),
        None if profile is None else _blurred(statistics["sharpness"], profile.blurred_below),
        _not_a_lesion() if novel else None,
    )
    return [warning for warning in checks if warning is not None]


def _low_resolution(size: tuple[int, int], needed: int) -> ImageWarning | None:
    if min(size) >= needed:
        return None
    return ImageWarning(
        code="low_resolution",
        detail=f"{size[0]}x{size[1]} pixels; members see squares of up to {needed} pixels, so the "
        f"shorter side should have at least {needed}",
    )


def _blurred(sharpness: float, least: float) -> ImageWarning | None:
    if sharpness >= least:
        return None
    return ImageWarning(
        code="blurred",
        detail=f"sharpness {sharpness:.3g}; 99% of the images that this bundle was calibrated on "
        f"reach {least:.3g}",
    )


def _not_a_lesion() -> ImageWarning:
    return ImageWarning(
        code="not_a_lesion",
        detail="farther from the training images than this bundle's threshold: perhaps another "
        "kind of picture",
    )
