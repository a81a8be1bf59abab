//! The hub that psn looks after: its folder, its env files, its database.
