"""Settings of releases' schedulers: those that are followed, and those that are refused."""

TABLE = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


V, ZERO, TRAILING = (
    dict(prediction_type="v_prediction"),
    dict(rescale_betas_zero_snr=True),
    dict(timestep_spacing="trailing"),
)


LEADING = dict(timestep_spacing="leading")


EDM = dict(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)


COSXL = dict(sigma_min=0.002, sigma_max=120.0, sigma_data=1.0, sigma_schedule="exponential")


REFUSED = {
    "another scheduler": ("LCMScheduler", TABLE, "LCMScheduler is not supported"),
    "clipped samples": ("DDIMScheduler", {**TABLE, "clip_sample": True}, "clip_sample=True"),
    "another schedule of betas": (
        "EulerDiscreteScheduler",
        {"beta_schedule": "squaredcos_cap_v2"},
        "squaredcos_cap_v2",
    ),
    "third order": ("DPMSolverMultistepScheduler", {**TABLE, "solver_order": 3}, "solver_order=3"),
    "another length of the table": (
        "EulerDiscreteScheduler",
        {**TABLE, "num_train_timesteps": 500},
        "num_train_timesteps=500",
    ),
    "a word for a number": (
        "EulerDiscreteScheduler",
        {**TABLE, "beta_end": "large"},
        "beta_end=large",
    ),
}


SCHEDULERS = {
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete",
    "DDIMScheduler": "scheduling_ddim",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "EDMDPMSolverMultistepScheduler": "scheduling_edm_dpmsolver_multistep",
    "EDMEulerScheduler": "scheduling_edm_euler",
}
