"""IMTL, impartial in losses and in gradients: Liu et al., ICLR 2021."""

from torch import Tensor

from motet.methods.base import GramMethod, register
from motet.methods.imtl_g import IMTLG
from motet.methods.imtl_l import IMTLL


@register("imtl", year=2021, cost="gram")
class IMTL(GramMethod):
    r"""IMTL-L scales the losses, heads included; IMTL-G gives the scaled gradients equal projections on the update.

    Losses are weighted by e^s with learned s, then w solves G w ∝ |g|, Σw = 1, for the Gram matrix G of the
    weighted losses' gradients.

    Args:
        lr: Learning rate of the log-scales s.

    Shapes:
        losses (K,) → loss_weights (K,); gram (K, K) of the weighted losses → weights (K,), summing to 1.

    Scale:
        The first update is IMTL-G's: all losses times c leave its weights as they are.

    Cost:
        One eigendecomposition of K×K, and four numbers of state a task.

    Note:
        All of `IMTLL` and `IMTLG` holds here, and nothing is added. The scales set what each head learns; on the
        trunk they set the length of the update, whose direction IMTL-G finds free of them.
    """

    scale = 1.0

    def __init__(self, lr: float = 0.025) -> None:
        super().__init__()
        self.lr = IMTLL(lr).lr
        self._equal = IMTLG()

    def loss_weights(self, losses: Tensor) -> Tensor:
        scales = IMTLL(self.lr)
        # Its state is this method's, and so are the tasks that it is given.
        scales._state, scales._rows, scales._count = self._state, self._rows, self._count
        return scales.weights(losses)

    def weights(self, gram: Tensor) -> Tensor:
        weights = self._equal.weights(gram)
        self.converged = self._equal.converged
        return weights
