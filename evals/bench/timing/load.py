"""How busy other processes keep the machine while something is timed."""

import time

import psutil


class Load:
    """Measured from construction on."""

    def __init__(self) -> None:
        self._start, self._all, self._own = time.monotonic(), _seconds_of_all(), time.process_time()

    def others(self) -> float:
        """Return how many cores other processes have used since, on average."""
        elapsed = time.monotonic() - self._start
        used = _seconds_of_all() - self._all - (time.process_time() - self._own)
        return max(0.0, used / elapsed) if elapsed > 0 else 0.0


def _seconds_of_all() -> float:
    """CPU time that all processes have used on all cores, in steps of a hundredth of a second."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "steal", 0.0)
