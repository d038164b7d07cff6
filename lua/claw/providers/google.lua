-- Another name for gemini.
return require("claw.providers.gemini")
