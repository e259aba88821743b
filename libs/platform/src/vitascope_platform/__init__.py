"""Transport: buses, key-value buckets, object stores, the job records, and the worker that settles deliveries."""
