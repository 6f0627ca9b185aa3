-- The image makes one database; each service has its own.
CREATE DATABASE users OWNER tessera;
