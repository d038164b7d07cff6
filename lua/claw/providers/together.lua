return require("claw.providers.compatible")()
