"""How public projects serve this model: FastAPI, a pydantic model, and for each request a DataFrame through the scikit-learn pipeline.

The pipeline is that of the bundle that studperf serves. serve.py starts this program; it is kept cheap: the model is loaded once, bounds
and categories are left to pydantic, and there is no interval, log, metric, limit or header.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, Field

from studperf.prediction import load_model

Education = Literal["some high school", "high school", "some college", "associate's degree", "bachelor's degree", "master's degree"]


class Student(BaseModel):
    """One student."""

    gender: Literal["female", "male"]
    race_ethnicity: Literal["group A", "group B", "group C", "group D", "group E"]
    parental_level_of_education: Education
    lunch: Literal["free/reduced", "standard"]
    test_preparation_course: Literal["none", "completed"]
    reading_score: float = Field(ge=0, le=100)
    writing_score: float = Field(ge=0, le=100)


class Prediction(BaseModel):
    """The answer."""

    prediction: float


app = FastAPI()
pipeline = load_model().pipeline


@app.get("/livez")
async def alive() -> dict[str, str]:
    """Is it there?"""
    return {"status": "alive"}


def answer(student: Student) -> Prediction:
    """A table with one row, encoded and predicted."""
    frame = pd.DataFrame([student.model_dump()])
    return Prediction(prediction=float(pipeline.predict(frame)[0]))


@app.post("/predict")
def predict(student: Student) -> Prediction:
    """A plain function, as it is mostly written, and as FastAPI's manual has it for work that blocks: it runs in a thread."""
    return answer(student)


@app.post("/predict/coroutine")
async def predict_at_once(student: Student) -> Prediction:
    """A coroutine: cheaper, and everybody else waits."""
    return answer(student)
