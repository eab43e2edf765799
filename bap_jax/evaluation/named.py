"""Attacks by their names: single ones, AutoAttack, cascades such as ``cascade:apgd-ce+square``, in every norm that they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from bap_jax.errors import SettingError
from bap_jax.evaluation.autoattack import AUTOATTACK, autoattack
from bap_jax.evaluation.cascade import Cascade, cascade
from bap_jax.evaluation.given import attacks_of
from bap_jax.evaluation.threats import ATTACKS, attack_settings, named_threat
from bap_jax.types import NORMS, Bounds, Norm, Threat

CASCADE = "cascade:"


def parts_of(name: str, setting: str = "attacks") -> tuple[str, ...]:
    """The attacks that a cascade is named after; of any other name, itself.

    Raises:
      SettingError: a cascade of something that is no attack, told as the value of ``setting``.

    Example:
      >>> parts_of("cascade:apgd-ce+square"), parts_of("pgd")
      (('apgd-ce', 'square'), ('pgd',))
    """
    if not name.startswith(CASCADE):
        return (name,)
    parts = tuple(name.removeprefix(CASCADE).split("+"))
    if any(part not in ATTACKS for part in parts):
        raise SettingError(setting, name, f"{CASCADE} and names out of {', '.join(ATTACKS)}, joined by +")
    return parts


def norms_of(name: str) -> tuple[str, ...]:
    """The norms that an attack works in; all of them for what is somebody's own.

    Example:
      >>> norms_of("fmn"), norms_of("autoattack-plus")
      (('linf', 'l2', 'l1', 'l0'), ('linf', 'l2'))
    """
    if name in ATTACKS:
        return ATTACKS[name].norms
    if name in AUTOATTACK:
        return ("linf", "l2", "l1") if AUTOATTACK[name] == "standard" else ("linf", "l2")
    return NORMS


def takes(name: str, setting: str) -> bool:
    """Whether an attack of the package, or AutoAttack, has a setting.

    Example:
      >>> takes("pgd", "num_steps"), takes("autoattack", "num_queries"), takes("autoattack-rand", "num_queries")
      (True, True, False)
    """
    if name in AUTOATTACK:
        return setting == "num_steps" or (setting == "num_queries" and AUTOATTACK[name] != "rand")  # which has no Square
    return name in ATTACKS and setting in attack_settings(name)


def threats_of(
    attacks: Any, norms: Sequence[str], bounds: Bounds = Bounds(), settings: Mapping[str, Any] | None = None
) -> list[Threat | Cascade]:
    """The attacks that a caller names, in every norm asked for that they have; those that are made already stay as they are.

    Args:
      attacks: names, several in one text parted by commas, or a sequence of names, threats and cascades.
      norms: of the named ones.
      bounds: the box of the named ones.
      settings: keywords of the attacks' functions; each goes to the named attacks that have it.

    Returns:
      At least one.

    Raises:
      SettingError: a name that nothing has, a norm that an attack has not, a setting that none of them takes.

    Example:
      >>> [threat.name for threat in threats_of("pgd, autoattack", ["linf"], settings={"num_steps": 5})]
      ['pgd-5-linf', 'autoattack-5-linf']
    """
    for norm in norms:
        if norm not in NORMS:
            raise SettingError("norm", norm, "one of " + ", ".join(NORMS))
    if isinstance(attacks, str | Threat | Cascade) or not isinstance(attacks, Iterable):
        attacks = [attacks]
    given = [
        part for each in attacks for part in ([name.strip() for name in each.split(",")] if isinstance(each, str) else [each])
    ]
    if not given:
        raise SettingError("attacks", [], 'at least one, such as "autoattack"')
    names = [part for each in given if isinstance(each, str) for part in parts_of(each)]
    for name in names:
        if name not in ATTACKS and name not in AUTOATTACK:
            raise SettingError("attacks", name, f"{', '.join([*ATTACKS, *AUTOATTACK])} or {CASCADE}NAME+NAME")
    for setting, value in (settings or {}).items():
        if not any(takes(name, setting) for name in names):
            raise SettingError(setting, value, f"a setting of one of {', '.join(names) or 'the attacks, which are made already'}")
    made: list[Threat | Cascade] = []
    for each in given:
        made += _in_every_norm(each, norms, bounds, settings or {}) if isinstance(each, str) else attacks_of(each)
    return made


def _in_every_norm(name: str, norms: Sequence[str], bounds: Bounds, settings: Mapping[str, Any]) -> list[Threat | Cascade]:
    parts = parts_of(name)
    able = [norm for norm in norms if all(norm in norms_of(part) for part in parts)]
    if not able:
        wanted = "; ".join(f"{' or '.join(norms_of(part))} with {part}" for part in dict.fromkeys(parts))
        raise SettingError("norm", ", ".join(norms), wanted)
    return [_named(name, parts, cast(Norm, norm), bounds, settings) for norm in able]


def _named(name: str, parts: tuple[str, ...], norm: Norm, bounds: Bounds, settings: Mapping[str, Any]) -> Threat | Cascade:
    mine = {part: {key: value for key, value in settings.items() if takes(part, key)} for part in parts}
    if name in AUTOATTACK:
        label = name + "".join(f"-{value}{'q' if key == 'num_queries' else ''}" for key, value in mine[name].items())
        return autoattack(norm, version=AUTOATTACK[name], bounds=bounds, name=f"{label}-{norm}", **mine[name])
    made = [named_threat(part, norm=norm, bounds=bounds, **mine[part]) for part in parts]
    return made[0] if parts == (name,) else cascade(f"{'+'.join(parts)}-{norm}", made)
