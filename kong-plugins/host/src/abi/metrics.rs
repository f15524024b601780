//! Metrics: counters, gauges and histograms.

use super::ENV;
use crate::error::{forbidden, unsupported};
use crate::metrics::MetricKind;
use crate::state::{State, Status, read_text, write, write_u32};
use std::sync::atomic::Ordering;
use wasmtime::{Caller, Linker};

/// Most metrics that one VM defines; the same name again is the same metric.
const MAX_DEFINED: usize = 1024;
/// Longest name that is read, in bytes.
const MAX_NAME: u32 = 256;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_define_metric", define)?;
    linker.func_wrap(ENV, "proxy_get_metric", get)?;
    linker.func_wrap(ENV, "proxy_record_metric", record)?;
    linker.func_wrap(ENV, "proxy_increment_metric", increment)?;
    Ok(())
}

fn define(
    mut caller: Caller<'_, State>,
    kind: u32,
    name: u32,
    name_size: u32,
    return_id: u32,
) -> wasmtime::Result<u32> {
    let kind = match kind {
        0 => MetricKind::Counter,
        1 => MetricKind::Gauge,
        2 => MetricKind::Histogram,
        _ => return unsupported("proxy_define_metric of another kind"),
    };
    if name_size > MAX_NAME {
        return forbidden("a metric's name is too long");
    }
    let name = read_text(&caller, name, name_size)?;
    let state = caller.data_mut();
    let Some(metric) = state.shared.metrics.define(&state.module, &name, kind) else {
        return forbidden("a metric cannot be defined: too many, or of another kind before");
    };
    let known = state
        .defined
        .iter()
        .position(|m| std::sync::Arc::ptr_eq(m, &metric));
    let id = match known {
        Some(id) => id,
        None if state.defined.len() < MAX_DEFINED => {
            state.defined.push(metric);
            state.defined.len() - 1
        }
        None => return forbidden("too many metrics are defined"),
    };
    write_u32(
        &mut caller,
        return_id,
        u32::try_from(id).unwrap_or(u32::MAX),
    )?;
    Ok(Status::Ok as u32)
}

fn get(mut caller: Caller<'_, State>, id: u32, return_value: u32) -> wasmtime::Result<u32> {
    let Some(metric) = caller.data().defined.get(id as usize) else {
        return Ok(Status::NotFound as u32);
    };
    let value = metric.value.load(Ordering::Relaxed);
    write(&mut caller, return_value, &value.to_le_bytes())?;
    Ok(Status::Ok as u32)
}

fn record(caller: Caller<'_, State>, id: u32, value: u64) -> u32 {
    let status = match caller.data().defined.get(id as usize) {
        Some(metric) if metric.kind == MetricKind::Gauge => {
            metric.value.store(value, Ordering::Relaxed);
            Status::Ok
        }
        Some(metric) if metric.kind == MetricKind::Histogram => {
            metric.observe(value);
            Status::Ok
        }
        Some(_) => Status::BadArgument,
        None => Status::NotFound,
    };
    status as u32
}

fn increment(caller: Caller<'_, State>, id: u32, offset: i64) -> u32 {
    let status = match caller.data().defined.get(id as usize) {
        Some(metric) if metric.kind == MetricKind::Counter && offset < 0 => Status::BadArgument,
        Some(metric) if metric.kind == MetricKind::Histogram => Status::BadArgument,
        Some(metric) => {
            // Two's complement: adding the bits of a negative offset subtracts.
            metric
                .value
                .fetch_add(offset.cast_unsigned(), Ordering::Relaxed);
            Status::Ok
        }
        None => Status::NotFound,
    };
    status as u32
}
