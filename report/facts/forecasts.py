"""What a bundle would do on devices that are known: always forecasts, never measured."""

from __future__ import annotations

from ...bundle import Bundle
from ...errors import CapacityError, ConfigError
from ...forecast.devices import AnyDevice, known_devices
from ...forecast.forecast import Work, forecast_rows
from ...forecast.shapes import shape_of_bundle
from ..document import DeviceForecast


def forecasts_of(bundle: Bundle) -> tuple[list[DeviceForecast], str | None]:
    """On every known device, as `foveal forecast BUNDLE` has it: one sequence, behind a prompt of half of the context.

    Returns:
        A row for each device; or none, and why: not every bundle can be forecast.
    """
    context = bundle.manifest.model.context
    devices: dict[str, AnyDevice] = dict(known_devices())
    work = Work(context=context, prompt_tokens=max(context // 2, 1))
    try:
        rows = forecast_rows([shape_of_bundle(bundle, on_gpu) for on_gpu in (False, True)], devices, work)
    except (ConfigError, CapacityError) as error:
        return [], str(error)
    found = [
        DeviceForecast(
            name=bundle.name,
            device=device.title,
            tokens_per_s=row.tokens_per_s,
            at_least=row.at_least,
            at_most=row.at_most,
            worst_step_ms=row.worst_step_ms,
            bound=row.bound,
            memory=row.memory.total,
            fits=row.memory.fits,
        )
        for device, row in zip(devices.values(), rows, strict=True)
    ]
    return found, None
