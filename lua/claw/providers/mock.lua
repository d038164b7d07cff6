-- Built in, answers offline: no key leaves, paths stay as they came.
return { auth = false, keep_v1 = true }
