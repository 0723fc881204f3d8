# Thin aliases; everything is in `cargo xtask`.

default:
    @just --list

# What CI requires of the source
check *args:
    cargo xtask check {{args}}

# The whole suite, and what was skipped
test *args:
    cargo xtask test {{args}}

# From a fresh clone to a running devnet
quickstart *args:
    cargo xtask quickstart {{args}}

# Put the programs where a user expects them
install *args:
    cargo xtask install {{args}}

fmt:
    cargo fmt --all
