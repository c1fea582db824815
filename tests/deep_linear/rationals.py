"""The exact gap of the stored floats, in rational arithmetic: what every bound is held to."""

import itertools
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

Matrix = list[list[Fraction]]


def rational(A) -> Matrix:
    return [[Fraction(float(a)) for a in row] for row in np.asarray(A, np.float64)]


def times(A: Matrix, B: Matrix) -> Matrix:
    columns = list(zip(*B, strict=True))
    return [[sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in columns] for row in A]


def squares(A: Matrix) -> Fraction:
    return sum((a * a for row in A for a in row), Fraction(0))


def minus(A: Matrix, B: Matrix) -> Matrix:
    return [[a - b for a, b in zip(p, q, strict=True)] for p, q in zip(A, B, strict=True)]


def predicted(weights, X) -> Matrix:
    Z = rational(X)
    for w in weights:
        Z = times(Z, rational(w))
    return Z


def loss(weights, X, Y) -> Fraction:
    return squares(minus(predicted(weights, X), rational(Y))) / 2


def explained(X, Y) -> Matrix:
    """``Y^T P Y``, P the projector on the column space of X, by elimination in ``[X^T X, X^T Y]``, of any rank."""
    x, y = rational(X), rational(Y)
    xt = [list(column) for column in zip(*x, strict=True)]
    G, B = times(xt, x), times(xt, y)
    rows, found = [g + b for g, b in zip(G, B, strict=True)], [[Fraction(0)] * len(y[0]) for _ in y[0]]
    for i in range(len(G)):
        pivot = rows[i][i]  # the Schur complements are positive semidefinite: a zero means a column of zeros
        if not pivot:
            continue
        b = rows[i][len(G) :]
        for p, q in itertools.product(range(len(b)), repeat=2):
            found[p][q] += b[p] * b[q] / pivot
        for j in range(i + 1, len(G)):
            factor = rows[j][i] / pivot
            rows[j] = [v - factor * u for u, v in zip(rows[i], rows[j], strict=True)]
    return found


def leading(M: Matrix, k: int) -> Fraction:
    """The sum of the k largest eigenvalues of a (1, 1) or (2, 2) matrix, to 60 digits."""
    trace = sum((M[i][i] for i in range(len(M))), Fraction(0))
    if k >= len(M):
        return trace
    root = (M[0][0] - M[1][1]) ** 2 + 4 * M[0][1] * M[1][0]
    with localcontext() as context:
        context.prec = 60
        return (trace + Fraction((Decimal(root.numerator) / Decimal(root.denominator)).sqrt())) / 2


def gap(weights, X, Y) -> Fraction:
    """``L - L*`` at the weights; dy is 1 or 2 unless the bottleneck costs nothing."""
    k = min(np.shape(X)[1], *(np.shape(w)[1] for w in weights))
    return loss(weights, X, Y) - (squares(rational(Y)) - leading(explained(X, Y), k)) / 2
