//! The gateway over a toy database: with a driver, message by message, and with noise.

mod driver;
mod noise;
mod toy;
mod wire;
