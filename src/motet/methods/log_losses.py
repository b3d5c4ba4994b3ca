"""Log-losses: any method on the tasks' relative changes: Navon et al., ICML 2022; Lin et al., arXiv 2308.12029."""

from torch import Tensor

from motet.methods.base import Method
from motet.methods.wrapper import Wrapper


class LogLosses(Wrapper):
    r"""Give a method log Lₖ in place of Lₖ: gradients gₖ/Lₖ, so that no task's unit of measurement matters.

    ``LogLosses(MGDA())`` is MGDA on log-losses, ``LogLosses(Sum())`` is `SI`.

    Args:
        method: The method, or its name. One that takes losses of any sign, since logarithms have both.

    Shapes:
        As the method's.

    Scale:
        One loss times c leaves everything as it is, for methods that look at gradients only.

    Cost:
        None beyond the method's.

    Note:
        Heads get the gradient of log Lₖ, as all that is done to a loss before a method sees it is done to its head.
    """

    def __init__(self, method: Method | str) -> None:
        super().__init__(method)
        if self.method.lower_bound is not None:
            raise ValueError(
                f"{self.method!r} needs losses above {self.method.lower_bound:g}, and logarithms of losses are not: "
                "wrap a method that takes losses of any sign"
            )
        self.lower_bound = 0.0
        self.scale = None
        self.batched = self.method.batched

    def loss_weights(self, losses: Tensor) -> Tensor | None:
        excess = self.above_bound(losses)
        if self.needs == "losses":
            return None
        factors = self.method.loss_weights(excess.log())
        return 1 / excess if factors is None else factors.to(excess) / excess

    def observe(self, losses: Tensor) -> None:
        self.method.observe(self.above_bound(losses).log())

    def known_weights(self, losses: Tensor) -> Tensor | None:
        return self.method.known_weights(self.above_bound(losses).log())

    def weights(self, given: Tensor) -> Tensor:
        if self.needs != "losses":
            return self.method.weights(given)
        excess = self.above_bound(given)
        return self.method.weights(excess.log()) / excess

    def update(self, losses: Tensor) -> None:
        """Take the losses after the step, as logarithms."""
        self.method.update(self.above_bound(losses).log())
