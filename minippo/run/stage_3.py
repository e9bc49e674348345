"""The flags of a run of stage 3 as its folder holds them, for who looks at it later."""

from dataclasses import dataclass

from minippo.ppo import PPOConfig
from minippo.run import sizes
from minippo.run.errors import UserError
from minippo.run.flags import DeviceConfig, checked, option


@dataclass
class Stage3(PPOConfig, DeviceConfig):
    """What others need of the flags of finetune_ppo.py; a test holds names, defaults and ranges equal."""
    data: str = option("movies", "")
    model: str = option("runs/pretrain", "")
    reward: str = option("runs/reward", "")
    score: str = option("", "")
    separate_critic: bool = option(False, "")
    temperature: float = option(0.8, "", low=0.01)
    shortest_prompt: int = option(2, "", low=1)
    longest_prompt: int = option(8, "", low=1)
    target: str = option("positive", "", choices=("positive", "negative"))
    iterations: int = option(60, "", low=1)
    rollout_size: int = option(256, "", low=2)
    lr: float = option(1e-4, "", low=0)
    kl_target: float = option(4.0, "", low=0)
    kl_horizon: float = option(1e3, "", low=1)


def of_stage_3(folder, given):
    """Settings {name: value} as a Stage3; UserError naming the folder for what no flags can have given."""
    try:
        found = checked(Stage3, given)
        sizes.check_rollout(found)
    except UserError as error:
        raise UserError(f"{folder}/config.json: no settings of finetune_ppo.py ({error}): damaged, or of "
                        "another version; run the stage again") from None
    return found
