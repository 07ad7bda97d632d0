"""How members came about."""

from ensemble.pages.training import training_figure, trajectory_figure


def test_members_have_lines_of_their_own_and_other_trials_share_one() -> None:
    figure = training_figure([("best", [0.5, None, 0.3])], [("x", [0.9]), ("y", [0.8, 0.7])])
    others, member = figure.data
    assert others.y == (0.9, None, 0.8, 0.7, None)
    assert others.text[2] == "y"
    assert member.y == (0.5, None, 0.3)
    assert member.line.width > others.line.width


def test_a_diverging_trial_does_not_flatten_the_others() -> None:
    figure = training_figure([("best", [0.5, 0.4])], [("lost", [0.6, 40.0])])
    assert figure.layout.yaxis.range[1] < 2


def test_the_lowest_loss_of_a_trajectory_is_marked() -> None:
    picks, star = trajectory_figure([0.4, 0.3, 0.32]).data
    assert picks.x == (1, 2, 3)
    assert (star.x, star.y) == ((2,), (0.3,))


def test_names_are_shown_and_never_markup() -> None:
    text = training_figure([("<b>", [1.0])], [("</script>", [1.0])]).to_json()
    assert "<" not in text
