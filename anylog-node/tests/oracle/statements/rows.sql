# Plain rows: columns, expressions, order, limits, distinct, NULL, unicode.
select * from readings
select timestamp, device, value from readings
select timestamp, device, site, value, count, big, price, ok, note, event, level from readings
SELECT Timestamp, DEVICE, Value FROM readings WHERE Level = 3
select device as name, value as reading from readings where level = 2
select device, value from readings where device = 'pump-1' order by timestamp, device, value, big
select timestamp, big from readings order by timestamp, big
select timestamp, big from readings order by timestamp desc, big limit 100
select timestamp, big from readings order by timestamp desc, big desc limit 100
select timestamp, big, device from readings order by timestamp, big limit 37
select value, big from readings order by value, big limit 50
select value, big from readings order by value desc, big limit 50
select value, big from readings order by value desc, big desc limit 1000
select count, big from readings order by count, big limit 40 offset 7
select count, big from readings order by count desc, big limit 40 offset 1000
select big from readings order by big limit 10 offset 100000000
select big from readings order by big limit 0
select device, big from readings order by device, big
select device, big from readings order by device desc, big limit 500
select note, big from readings order by note, big limit 600
select site, level, big from readings order by site, level desc, big limit 300
select ok, big from readings order by ok, big limit 200
select ok, big from readings order by ok desc, big limit 200
select price, big from readings order by price, big limit 200
select price, big from readings order by price desc, big limit 200
select event, big from readings order by event, big limit 200
select event, big from readings order by event desc, big limit 200
select value, big from readings order by value nulls last, big limit 100
select value, big from readings order by value desc nulls first, big limit 100
select big from readings order by timestamp, device, value, big limit 25
select device, big from readings order by 1, 2 limit 60
select device as d, big as b from readings order by d, b limit 60
select level, big from readings order by abs(level), level, big limit 70
select level, big from readings order by level * -1, big limit 70
select big from readings order by length(note), big limit 70
select upper(device) as u, big from readings order by u, big limit 40
select top 5 big from readings order by big
= select big from readings order by big limit 5
select limit 6 big from readings order by big desc
= select big from readings order by big desc limit 6
select distinct device from readings
select distinct device from readings order by device
select distinct site, level from readings order by site, level
select distinct site, level from readings order by level desc, site limit 7
select distinct(device) from readings where level > 0
= select distinct device as "distinct(device)" from readings where level > 0
select distinct ok from readings
select distinct level from readings order by level limit 3 offset 2
select distinct note from readings where note like 'note%' order by note
~ positive
select distinct value > 0 as positive from readings
~ positive
select distinct value > 0 as positive from readings order by positive
select distinct lower(device) as name from readings order by name
select distinct substr(timestamp, 1, 4) as year from readings order by year
select value + 1 as more, value * 2 as twice, value - count as less, big from readings where level = 1
select value / 4 as quarter, -value as negative, big from readings where level = -1
select count + level as both, count * 2 as twice, count % 7 as rest, big from readings where count is not null
select count / 7 as seventh, big from readings where level = 0
select price * 100 as cents, big from readings where price is not null
select price + 0.5 as more, big from readings where level = 4
select device || ' at ' || site as place, big from readings where level = 2
select 'x' as letter, 7 as number, 1.5 as fraction, big from readings where level = 3
select big, 'it''s' as quoted, 'ü日本' as foreign_text from readings where level = 3
~ empty
select big, value is null as empty from readings where level = -3
select abs(value) as a, big from readings where value < 0
select round(value) as r, big from readings where level = 1
select round(value, 1) as r, big from readings where level = 1
select coalesce(value, 0) as v, big from readings where level = 1
= select coalesce(value, 0.0) as v, big from readings where level = 1
select coalesce(device, note, 'nothing') as v, big from readings where level = 1
select ifnull(value, -1) as v, big from readings where level = 1
= select ifnull(value, -1.0) as v, big from readings where level = 1
select nullif(level, 2) as v, big from readings where level > 0
select length(device) as n, big from readings where level = 2
select char_length(note) as n, big from readings where level = 2
= select length(note) as n, big from readings where level = 2
select upper(site) as s, lower(device) as d, big from readings where level = 2
select substr(device, 2, 3) as s, big from readings where level = -2
select substring(device, 1, 2) as s, big from readings where level = -2
= select substr(device, 1, 2) as s, big from readings where level = -2
select trim(device) as t, ltrim(device) as l, rtrim(device) as r, big from readings where device = ' blank '
select replace(device, 'pump', 'Pumpe') as d, big from readings where level = 2
select floor(value) as f, ceil(value) as c, big from readings where value is not null and level = 2
= select cast(value as integer) - (value < cast(value as integer)) as f, cast(value as integer) + (value > cast(value as integer)) as c, big from readings where value is not null and level = 2
select greatest(level, 0) as most, least(level, 0) as fewest, big from readings where level is not null
= select max(level, 0) as most, min(level, 0) as fewest, big from readings where level is not null
select case when value > 500 then 'high' when value < -500 then 'low' else 'middle' end as class, big from readings where level = 0
select case level when 1 then 'one' when 2 then 'two' end as word, big from readings where level > 0
select cast(value as integer) as whole, big from readings where level = 3
select cast(count as text) as t, cast(level as double precision) as f, big from readings where level = 3
= select cast(count as text) as t, cast(level as real) as f, big from readings where level = 3
select instr(device, 'u') as at, big from readings where level = 1
select concat(site, '-', level) as c, big from readings where level = 1
= select site || '-' || level as c, big from readings where level = 1
select readings.device, readings.big from readings where readings.level = 1
select r.device, r.big from readings as r where r.level = 1 order by r.big
select "device", "count" from readings where "level" = 1
select device,value,big from readings where level=1 and value>=0 order by big;
select count, level, big from readings where big > 140000000000000
select big from readings limit 0
select note, big from readings where note like '%"k"%'
