-- The key is an OAuth access token.
return { auth = { header = "authorization", prefix = "Bearer " } }
