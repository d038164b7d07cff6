-- Speaks whatever its clients speak: requests are passed on as they come.
return { auth = { header = "authorization", prefix = "Bearer " } }
