"""The source text's headings, which the book follows."""

from __future__ import annotations

from enum import Enum


class Heading(Enum):
    """The source's headings in its order, which is the book's: (part, heading)."""

    RESIDUAL = (
        "Core Architectural Applications in Deep Learning",
        "Stabilizing Very Deep Networks: The Case of Residual Networks",
    )
    CONVOLUTIONAL = (
        "Core Architectural Applications in Deep Learning",
        "Application in Convolutional Neural Networks (CNNs)",
    )
    SEQUENCES = (
        "Adapting Batch Normalization for Sequential and Structured Data",
        "Challenges in Sequence Models: RNNs and Transformers",
    )
    GRAPHS = (
        "Adapting Batch Normalization for Sequential and Structured Data",
        "Challenges in Graph-Structured Data: GNNs",
    )
    ADVERSARIAL = (
        "Batch Normalization in Advanced Training Paradigms",
        "Generative Adversarial Networks (GANs)",
    )
    TRANSFER = ("Batch Normalization in Advanced Training Paradigms", "Transfer Learning and Domain Adaptation")
    CONTRASTIVE = ("Batch Normalization in Advanced Training Paradigms", "Self-Supervised and Contrastive Learning")
    AUGMENTATION = ("Batch Normalization in Advanced Training Paradigms", "Interaction with Data Augmentation")
    PARALLEL = ("Large-Scale and Distributed Systems", "Data-Parallel Training and Synchronized BN (SyncBN)")
    FEDERATED = ("Large-Scale and Distributed Systems", "Federated Learning (FL)")
    BIOLOGY = (
        "Interdisciplinary Connections and Societal Impact",
        "Computational Biology: Mitigating Batch Effects",
    )
    PRIVACY = (
        "Interdisciplinary Connections and Societal Impact",
        "Privacy and Security: Differentially Private Batch Normalization",
    )
