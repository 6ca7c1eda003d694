"""A simulated Ollama: the wire as recorded, made-up answers, named faults. See `Simulator`."""

from gateway.demo.simulator import Request, Simulator

__all__ = ["Request", "Simulator"]
