//! Between our types and Arrow's: schemas, batches, scalars.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int32Builder,
    Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Decimal128Type, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::ScalarValue;
use rust_decimal::Decimal;
use volt_engine::catalog::Column;
use volt_engine::row::RowRef;
use volt_engine::value::{DataType, Value, ValueRef};

use crate::error::SqlError;
use crate::statement::RowSink;

/// Digits after the point of a NUMERIC that names none.
const FREE_SCALE: u8 = 10;
/// Digits that a NUMERIC has at most.
const MAX_PRECISION: u8 = 28;

/// NUMERIC without arguments.
pub(super) const FREE_NUMERIC: DataType = DataType::Numeric {
    precision: MAX_PRECISION,
    scale: FREE_SCALE,
};

/// The Arrow type of a column.
pub(super) fn to_arrow(data_type: DataType) -> ArrowType {
    match data_type {
        DataType::Boolean => ArrowType::Boolean,
        DataType::Int => ArrowType::Int32,
        DataType::BigInt => ArrowType::Int64,
        DataType::Double => ArrowType::Float64,
        DataType::Numeric { precision, scale } => ArrowType::Decimal128(precision, scale as i8),
        DataType::Varchar(_) | DataType::Text => ArrowType::Utf8,
        DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Bytea => ArrowType::Binary,
    }
}

/// The type that a client sees for an Arrow type.
pub(super) fn from_arrow(data_type: &ArrowType) -> DataType {
    match data_type {
        ArrowType::Boolean => DataType::Boolean,
        ArrowType::Int8 | ArrowType::Int16 | ArrowType::Int32 | ArrowType::UInt8 | ArrowType::UInt16 => DataType::Int,
        ArrowType::Int64 | ArrowType::UInt32 | ArrowType::UInt64 => DataType::BigInt,
        ArrowType::Float16 | ArrowType::Float32 | ArrowType::Float64 => DataType::Double,
        ArrowType::Decimal32(precision, scale)
        | ArrowType::Decimal64(precision, scale)
        | ArrowType::Decimal128(precision, scale)
        | ArrowType::Decimal256(precision, scale) => DataType::Numeric {
            // A scale below 0 stands for zeros before the point.
            precision: precision
                .saturating_add(scale.min(&0).unsigned_abs())
                .min(MAX_PRECISION),
            scale: (*scale).clamp(0, MAX_PRECISION as i8) as u8,
        },
        ArrowType::Timestamp(_, _) | ArrowType::Date32 | ArrowType::Date64 => DataType::Timestamp,
        ArrowType::Binary | ArrowType::LargeBinary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_) => {
            DataType::Bytea
        }
        _ => DataType::Text,
    }
}

/// The Arrow schema of a table's columns.
pub(super) fn schema_of<'c>(columns: impl Iterator<Item = &'c Column>) -> SchemaRef {
    let field = |column: &Column| Field::new(&column.name, to_arrow(column.data_type), column.nullable);
    Arc::new(Schema::new(columns.map(field).collect::<Vec<_>>()))
}

/// A batch of encoded rows, whose values have the schema's types.
pub(super) fn to_batch(schema: &SchemaRef, rows: &[Bytes]) -> Result<RecordBatch, SqlError> {
    let parsed: Result<Vec<RowRef<'_>>, _> = rows.iter().map(|row| RowRef::parse(row)).collect();
    let parsed = parsed.map_err(SqlError::internal)?;
    let columns: Result<Vec<ArrayRef>, SqlError> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(place, field)| array(field.data_type(), parsed.iter().map(|row| row.get(place))))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns?, &options).map_err(SqlError::internal)
}

/// An array of these values.
pub(super) fn array<'a>(
    data_type: &ArrowType,
    values: impl Iterator<Item = ValueRef<'a>>,
) -> Result<ArrayRef, SqlError> {
    macro_rules! build {
        ($builder:expr, $($pattern:pat => $value:expr),+) => {{
            let mut builder = $builder;
            for value in values {
                match value {
                    ValueRef::Null => builder.append_null(),
                    $($pattern => builder.append_value($value),)+
                    other => return Err(SqlError::internal(format!("{other:?} in a column of {data_type}"))),
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    Ok(match data_type {
        ArrowType::Boolean => build!(BooleanBuilder::new(), ValueRef::Boolean(value) => value),
        ArrowType::Int32 => build!(Int32Builder::new(), ValueRef::Int(value) => value),
        ArrowType::Int64 => {
            build!(Int64Builder::new(), ValueRef::BigInt(value) => value, ValueRef::Int(value) => i64::from(value))
        }
        ArrowType::Float64 => build!(Float64Builder::new(), ValueRef::Double(value) => value),
        ArrowType::Utf8 => build!(StringBuilder::new(), ValueRef::Text(value) => value),
        ArrowType::Binary => build!(BinaryBuilder::new(), ValueRef::Bytea(value) => value),
        ArrowType::Timestamp(TimeUnit::Microsecond, None) => {
            build!(TimestampMicrosecondBuilder::new(), ValueRef::Timestamp(value) => value)
        }
        ArrowType::Decimal128(precision, scale) => {
            let builder = Decimal128Builder::new().with_data_type(ArrowType::Decimal128(*precision, *scale));
            build!(builder, ValueRef::Numeric(value) => mantissa(value, *scale as u32))
        }
        other => return Err(SqlError::internal(format!("no column has the type {other}"))),
    })
}

fn mantissa(mut value: Decimal, scale: u32) -> i128 {
    value.rescale(scale);
    value.mantissa()
}

/// Gives a batch's rows to a sink.
pub(super) fn give_batch(batch: &RecordBatch, sink: &mut dyn RowSink) -> Result<(), SqlError> {
    let columns: Result<Vec<ArrayRef>, SqlError> = batch
        .columns()
        .iter()
        .map(|column| {
            let target = to_arrow(from_arrow(column.data_type()));
            if *column.data_type() == target {
                Ok(Arc::clone(column))
            } else {
                // What has no room in a type of ours is an error, not a NULL.
                let options = CastOptions {
                    safe: false,
                    ..CastOptions::default()
                };
                cast_with_options(column, &target, &options).map_err(super::errors::from_arrow)
            }
        })
        .collect();
    let columns = columns?;
    let mut values = Vec::with_capacity(columns.len());
    for row in 0..batch.num_rows() {
        values.clear();
        for column in &columns {
            values.push(value_at(column, row)?);
        }
        sink.row(&values);
    }
    Ok(())
}

fn value_at(column: &ArrayRef, row: usize) -> Result<ValueRef<'_>, SqlError> {
    if column.is_null(row) {
        return Ok(ValueRef::Null);
    }
    Ok(match column.data_type() {
        ArrowType::Boolean => ValueRef::Boolean(column.as_boolean().value(row)),
        ArrowType::Int32 => ValueRef::Int(column.as_primitive::<Int32Type>().value(row)),
        ArrowType::Int64 => ValueRef::BigInt(column.as_primitive::<Int64Type>().value(row)),
        ArrowType::Float64 => ValueRef::Double(column.as_primitive::<Float64Type>().value(row)),
        ArrowType::Utf8 => ValueRef::Text(column.as_string::<i32>().value(row)),
        ArrowType::Binary => ValueRef::Bytea(column.as_binary::<i32>().value(row)),
        ArrowType::Timestamp(_, _) => ValueRef::Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        ArrowType::Decimal128(_, scale) => {
            let mantissa = column.as_primitive::<Decimal128Type>().value(row);
            let value = Decimal::try_from_i128_with_scale(mantissa, *scale as u32);
            ValueRef::Numeric(value.map_err(|_| SqlError::new("22003", "numeric out of range"))?)
        }
        other => return Err(SqlError::internal(format!("a result of the type {other}"))),
    })
}

/// A parameter or constant as DataFusion has it.
pub(super) fn to_scalar(value: &Value, data_type: DataType) -> Result<ScalarValue, SqlError> {
    let array = array(&to_arrow(data_type), std::iter::once(value.as_ref()))?;
    ScalarValue::try_from_array(&array, 0).map_err(SqlError::internal)
}

/// A constant of a plan as we have it; None when it has no type of ours.
pub(super) fn from_scalar(scalar: &ScalarValue) -> Option<Value> {
    if scalar.is_null() {
        return Some(Value::Null);
    }
    // What has no type of ours would be taken for its text.
    if matches!(scalar.data_type(), ArrowType::Interval(_) | ArrowType::Duration(_)) {
        return None;
    }
    let target = to_arrow(from_arrow(&scalar.data_type()));
    let array = scalar.cast_to(&target).ok()?.to_array().ok()?;
    value_at(&array, 0).ok().map(ValueRef::to_value)
}
