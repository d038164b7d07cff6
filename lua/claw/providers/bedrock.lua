-- The key is a Bedrock API key; requests are not signed.
return { auth = { header = "authorization", prefix = "Bearer " } }
