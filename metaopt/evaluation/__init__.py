"""Evaluation: paired runs of an optimizer and its baselines, single predictions, controls, statistics and promotion.

    config = EvaluateConfig(target_model="MLP", steps=240, every=40, stride=20)
    evaluation = PairedEvaluation(config, load_task("digits"), {"my line": get_optimizer_model("Line")})
    print(Summary(at_best_rates(evaluation.compare())).candidate.full.speed_up)  # over the base optimizer alone

`metaopt.reporting` turns the comparison into tables, text and charts.
"""
