-- The name by which paths and providers know the protocol.
return require("claw.protocols.gemini")
