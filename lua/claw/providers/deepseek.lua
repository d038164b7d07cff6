return require("claw.providers.compatible")({ reasoning_field = "reasoning_content" })
