# increments, period, relative dates.
select increments(year, 1, timestamp), count(*) as n from readings
= select count(*) as n from readings group by @inc(year,1,timestamp) order by @inc(year,1,timestamp)
select increments(year, 2, timestamp), min(timestamp) as a, max(timestamp) as b, count(*) as n from readings
= select min(timestamp) as a, max(timestamp) as b, count(*) as n from readings group by @inc(year,2,timestamp) order by @inc(year,2,timestamp)
select increments(month, 1, timestamp), min(timestamp), max(timestamp), avg(value), count(*) from readings
= select min(timestamp) as "min(timestamp)", max(timestamp) as "max(timestamp)", avg(value) as "avg(value)", count(*) as "count(*)" from readings group by @inc(month,1,timestamp) order by @inc(month,1,timestamp)
select increments(month, 5, timestamp), min(value) as a, max(value) as b from readings
= select min(value) as a, max(value) as b from readings group by @inc(month,5,timestamp) order by @inc(month,5,timestamp)
select increments(week, 1, timestamp), min(timestamp) as t, count(*) as n from readings
= select min(timestamp) as t, count(*) as n from readings group by @inc(day,7,timestamp) order by @inc(day,7,timestamp)
select increments(week, 2, timestamp), sum(count) as n from readings where timestamp >= '2024-01-01'
= select sum(count) as n from readings where timestamp >= '2024-01-01' group by @inc(day,14,timestamp) order by @inc(day,14,timestamp)
select increments(day, 1, timestamp), count(*) as n, avg(value) as a from readings
= select count(*) as n, avg(value) as a from readings group by @inc(day,1,timestamp) order by @inc(day,1,timestamp)
select increments(day, 7, timestamp), count(*) as n, min(timestamp) as t from readings
= select count(*) as n, min(timestamp) as t from readings group by @inc(day,7,timestamp) order by @inc(day,7,timestamp)
select increments(day, 10, timestamp), max(device) as d from readings where value > 0
= select max(device) as d from readings where value > 0 group by @inc(day,10,timestamp) order by @inc(day,10,timestamp)
select increments(days, 3, timestamp), count(*) as n from readings where timestamp >= '2025-06-01' and timestamp < '2025-08-01'
= select count(*) as n from readings where timestamp >= '2025-06-01' and timestamp < '2025-08-01' group by @inc(day,3,timestamp) order by @inc(day,3,timestamp)
select increments(hour, 1, timestamp), count(*) as n, min(timestamp) as t from readings where timestamp >= '2025-06-14' and timestamp < '2025-06-17'
= select count(*) as n, min(timestamp) as t from readings where timestamp >= '2025-06-14' and timestamp < '2025-06-17' group by @inc(hour,1,timestamp) order by @inc(hour,1,timestamp)
select increments(hour, 6, timestamp), avg(value) as a, sum(value) as s, count(value) as c from readings where timestamp >= '2024-02-01' and timestamp < '2024-04-01'
= select avg(value) as a, sum(value) as s, count(value) as c from readings where timestamp >= '2024-02-01' and timestamp < '2024-04-01' group by @inc(hour,6,timestamp) order by @inc(hour,6,timestamp)
select increments(hour, 5, timestamp), count(distinct device) as d from readings where timestamp >= '2024-02-01' and timestamp < '2024-04-01'
= select count(distinct device) as d from readings where timestamp >= '2024-02-01' and timestamp < '2024-04-01' group by @inc(hour,5,timestamp) order by @inc(hour,5,timestamp)
select increments(minute, 1, timestamp), count(*) as n, avg(value) as a from readings where timestamp >= '2025-06-15 10:00:00' and timestamp < '2025-06-15 11:00:00'
= select count(*) as n, avg(value) as a from readings where timestamp >= '2025-06-15 10' and timestamp < '2025-06-15 11' group by @inc(minute,1,timestamp) order by @inc(minute,1,timestamp)
select increments(minute, 7, timestamp), range(value) as r, min(timestamp) as t from readings where timestamp between '2025-06-15T10:00:00Z' and '2025-06-15T11:00:00Z'
= select max(value) - min(value) as r, min(timestamp) as t from readings where timestamp between '2025-06-15 10:00:00.000000' and '2025-06-15 11:00:00.000000' group by @inc(minute,7,timestamp) order by @inc(minute,7,timestamp)
select increments(minute, 30, timestamp), max(value) as m from readings
= select max(value) as m from readings group by @inc(minute,30,timestamp) order by @inc(minute,30,timestamp)
select increments(second, 1, timestamp), count(*) as n, max(timestamp) as t from readings where timestamp >= '2025-06-15 10:00:00' and timestamp < '2025-06-15 10:20:00'
= select count(*) as n, max(timestamp) as t from readings where timestamp >= '2025-06-15 10:00' and timestamp < '2025-06-15 10:20' group by @inc(second,1,timestamp) order by @inc(second,1,timestamp)
select increments(second, 20, timestamp), sum(value) as s, min(timestamp) as t from readings where timestamp >= '2025-06-15 10:00:00' and timestamp < '2025-06-15 11:00:00'
= select sum(value) as s, min(timestamp) as t from readings where timestamp >= '2025-06-15 10' and timestamp < '2025-06-15 11' group by @inc(second,20,timestamp) order by @inc(second,20,timestamp)
select increments(second, 7, timestamp), avg(count) as a from readings where timestamp >= '2023-12-31' and timestamp < '2024-01-02'
= select avg(count) as a from readings where timestamp >= '2023-12-31' and timestamp < '2024-01-02' group by @inc(second,7,timestamp) order by @inc(second,7,timestamp)
select increments(day, 1, event), count(*) as n from readings where event >= '2024-01-01' and event < '2024-02-01'
= select count(*) as n from readings where event >= '2024-01-01' and event < '2024-02-01' group by @inc(day,1,event) order by @inc(day,1,event)
select increments(month, 3, timestamp), site, count(*) as n from readings group by site
= select site, count(*) as n from readings group by site, @inc(month,3,timestamp)
select increments(month, 3, timestamp), site, count(*) as n, avg(value) as a from readings group by site order by site
= select site, count(*) as n, avg(value) as a from readings group by site, @inc(month,3,timestamp) order by site, @inc(month,3,timestamp)
select increments(year, 1, timestamp), device, count(*) as n from readings group by device order by device desc
= select device, count(*) as n from readings group by device, @inc(year,1,timestamp) order by device desc, @inc(year,1,timestamp)
select increments(year, 1, timestamp), site, ok, max(value) as m from readings group by site, ok order by site, ok
= select site, ok, max(value) as m from readings group by site, ok, @inc(year,1,timestamp) order by site, ok, @inc(year,1,timestamp)
select increments(day, 1, timestamp), count(*) as n from readings limit 10
= select count(*) as n from readings group by @inc(day,1,timestamp) order by @inc(day,1,timestamp) limit 10
select increments(day, 1, timestamp), min(timestamp) as t, count(*) as n from readings order by n desc, t limit 10
= select min(timestamp) as t, count(*) as n from readings group by @inc(day,1,timestamp) order by n desc, t limit 10
select increments(day, 1, timestamp), max(timestamp) as timestamp, avg(value) as avg_val, min(value) as min_val, max(value) as max_val from readings where timestamp >= '2024-05-01T00:00:00.000Z' and timestamp <= '2024-06-01T00:00:00.000Z' limit 100
= select max(timestamp) as timestamp, avg(value) as avg_val, min(value) as min_val, max(value) as max_val from readings where timestamp >= '2024-05-01 00:00:00.000000' and timestamp <= '2024-06-01 00:00:00.000000' group by substr(readings.timestamp, 1, 10) order by substr(readings.timestamp, 1, 10) limit 100
select increments(day, 1, timestamp), count(*) as n from readings where timestamp > '2030-01-01'
= select count(*) as n from readings where 1 = 0 group by level
select increments(month, 1, timestamp), stddev(count) as s from readings
= select stddev(count) as s from readings group by @inc(month,1,timestamp) order by @inc(month,1,timestamp)
select increments(month, 1, timestamp), count(*) as n from readings having count(*) > 60
= select count(*) as n from readings group by @inc(month,1,timestamp) having count(*) > 60 order by @inc(month,1,timestamp)
# One hour over 1000 points is 4 seconds; six hours 22; a day a minute; 30 days 43 minutes; a year 9 hours.
select increments(timestamp), count(*) as n, min(timestamp) as t from readings where timestamp >= '2025-06-15 10:00:00.0' and timestamp < '2025-06-15 11:00:00.0'
= select count(*) as n, min(timestamp) as t from readings where timestamp >= '2025-06-15 10' and timestamp < '2025-06-15 11' group by @inc(second,4,timestamp) order by @inc(second,4,timestamp)
select increments(timestamp), count(*) as n from readings where timestamp >= '2025-06-15T06:00:00Z' and timestamp < '2025-06-15T12:00:00Z'
= select count(*) as n from readings where timestamp >= '2025-06-15 06' and timestamp < '2025-06-15 12' group by @inc(second,22,timestamp) order by @inc(second,22,timestamp)
select increments(timestamp), count(*) as n from readings where timestamp >= '2025-06-15' and timestamp < '2025-06-16'
= select count(*) as n from readings where timestamp >= '2025-06-15' and timestamp < '2025-06-16' group by @inc(minute,1,timestamp) order by @inc(minute,1,timestamp)
select increments(timestamp), count(*) as n from readings where timestamp >= '2025-06-01' and timestamp < '2025-07-01'
= select count(*) as n from readings where timestamp >= '2025-06-01' and timestamp < '2025-07-01' group by @inc(minute,43,timestamp) order by @inc(minute,43,timestamp)
select increments(timestamp, 100), count(*) as n from readings where timestamp >= '2024-01-01' and timestamp < '2025-01-01'
= select count(*) as n from readings where timestamp >= '2024-01-01' and timestamp < '2025-01-01' group by @inc(day,4,timestamp) order by @inc(day,4,timestamp)
select increments(10, timestamp), count(*) as n from readings where timestamp >= '2025-06-15 10:00:00' and timestamp < '2025-06-15 11:00:00'
= select count(*) as n from readings where timestamp >= '2025-06-15 10' and timestamp < '2025-06-15 11' group by @inc(minute,6,timestamp) order by @inc(minute,6,timestamp)
# period: the rows of the last n units that end at the last row before a time.
select count(*) as n from readings where period(hour, 1, '2025-06-15 10:30:00', timestamp)
= select count(*) as n from readings where timestamp <= (select max(timestamp) from readings where timestamp <= '2025-06-15 10:30:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-1 hours') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2025-06-15 10:30:00.000000'))
select timestamp, device, value, big from readings where period(minute, 5, '2025-06-15T10:30:00Z', timestamp) order by timestamp, big
= select timestamp, device, value, big from readings where timestamp <= (select max(timestamp) from readings where timestamp <= '2025-06-15 10:30:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-5 minutes') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2025-06-15 10:30:00.000000')) order by timestamp, big
select count(*) as n, avg(value) as a from readings where period(day, 30, '2024-07-01', timestamp)
= select count(*) as n, avg(value) as a from readings where timestamp <= (select max(timestamp) from readings where timestamp <= '2024-07-01 00:00:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-30 days') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2024-07-01 00:00:00.000000'))
select count(*) as n, max(timestamp) as t from readings where period(week, 2, '2024-01-01', timestamp)
= select count(*) as n, max(timestamp) as t from readings where timestamp <= (select max(timestamp) from readings where timestamp <= '2024-01-01 00:00:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-14 days') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2024-01-01 00:00:00.000000'))
select count(*) as n from readings where period(second, 120, '2025-06-15T10:59:00Z', timestamp)
= select count(*) as n from readings where timestamp <= (select max(timestamp) from readings where timestamp <= '2025-06-15 10:59:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-120 seconds') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2025-06-15 10:59:00.000000'))
select count(*) as n from readings where period(month, 6, '2025-01-20', timestamp)
= select count(*) as n from readings where timestamp <= (select max(timestamp) from readings where timestamp <= '2025-01-20 00:00:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-6 months') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2025-01-20 00:00:00.000000'))
select count(*) as n from readings where period(year, 1, now(), timestamp)
= select count(*) as n from readings where timestamp > (select strftime('%Y-%m-%d %H:%M:', max(timestamp), '-1 years') || substr(max(timestamp), 18) from readings)
select count(*) as n, min(timestamp) as t from readings where period(day, 3, now(), timestamp, and device = 'pump-2')
= select count(*) as n, min(timestamp) as t from readings where device = 'pump-2' and timestamp > (select strftime('%Y-%m-%d %H:%M:', max(timestamp), '-3 days') || substr(max(timestamp), 18) from readings where device = 'pump-2')
select device, count(*) as n from readings where period(day, 100, '2025-01-01', timestamp, and value > 0 and level in (1, 2)) group by device order by device
= select device, count(*) as n from readings where value > 0 and level in (1, 2) and timestamp <= (select max(timestamp) from readings where value > 0 and level in (1, 2) and timestamp <= '2025-01-01 00:00:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-100 days') || substr(e, 18) from (select max(timestamp) as e from readings where value > 0 and level in (1, 2) and timestamp <= '2025-01-01 00:00:00.000000')) group by device order by device
select count(*) as n from readings where period(hour, 2, '2025-06-15 10:59:59', timestamp) and device = 'pump-1'
= select count(*) as n from readings where device = 'pump-1' and timestamp <= (select max(timestamp) from readings where timestamp <= '2025-06-15 10:59:59.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-2 hours') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2025-06-15 10:59:59.000000'))
select count(*) as n from readings where level = 1 and period(day, 0.5, '2024-01-01', timestamp)
= select count(*) as n from readings where level = 1 and timestamp <= (select max(timestamp) from readings where timestamp <= '2024-01-01 00:00:00.000000') and timestamp > (select strftime('%Y-%m-%d %H:%M:', e, '-12 hours') || substr(e, 18) from (select max(timestamp) as e from readings where timestamp <= '2024-01-01 00:00:00.000000'))
select device, value from readings where period(day, 1, '2020-01-01', timestamp)
= select device, value from readings where 1 = 0
select count(*) as n from readings where period(day, 1, '2020-01-01', timestamp)
= select count(*) as n from readings where 1 = 0 having 1 = 0
select timestamp, value from readings where period(day, 1, now(), timestamp, and device = 'nobody')
= select timestamp, value from readings where 1 = 0
# Relative to now: no row lies near the bounds.
select count(*) as n from readings where timestamp >= now() - 3 days
= select count(*) as n from readings where timestamp >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-3 days')
select count(*) as n from readings where timestamp >= now() - 3d and timestamp < now() - 1 day
= select count(*) as n from readings where timestamp >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-3 days') and timestamp < strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 days')
select count(*) as n from readings where timestamp > -12h
= select count(*) as n from readings where timestamp > strftime('%Y-%m-%d %H:%M:%f', 'now', '-12 hours')
select count(*) as n from readings where timestamp > - 2 weeks
= select count(*) as n from readings where timestamp > strftime('%Y-%m-%d %H:%M:%f', 'now', '-14 days')
select count(*) as n from readings where timestamp >= -1w and timestamp <= -1d
= select count(*) as n from readings where timestamp >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-7 days') and timestamp <= strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 days')
select count(*) as n from readings where timestamp > now() - 1 month
= select count(*) as n from readings where timestamp > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 month')
select count(*) as n from readings where timestamp > now() - 1 year
= select count(*) as n from readings where timestamp > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 year')
select count(*) as n from readings where timestamp between now() - 5 days and now() - 2 days
= select count(*) as n from readings where timestamp between strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 days') and strftime('%Y-%m-%d %H:%M:%f', 'now', '-2 days')
select count(*) as n from readings where timestamp < now()
= select count(*) as n from readings
select count(*) as n from readings where timestamp > now()
= select count(*) as n from readings where 1 = 0
select count(*) as n from readings where timestamp >= date('now', 'start of month')
= select count(*) as n from readings where timestamp >= date('now', 'start of month')
select count(*) as n from readings where timestamp >= date('now', 'start of year') and timestamp < date('now', 'start of month', '-1 month')
= select count(*) as n from readings where timestamp >= date('now', 'start of year') and timestamp < date('now', 'start of month', '-1 month')
select count(*) as n from readings where timestamp < timestamp('now', 'start of month', '+1 month', '-1 day')
= select count(*) as n from readings where timestamp < datetime('now', 'start of month', '+1 month', '-1 day')
select count(*) as n from readings where timestamp >= date() - 10 days
= select count(*) as n from readings where timestamp >= date('now', '-10 days')
select increments(day, 1, timestamp), count(*) as n from readings where timestamp >= now() - 20 days
= select count(*) as n from readings where timestamp >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-20 days') group by @inc(day,1,timestamp) order by @inc(day,1,timestamp)
select increments(hour, 1, timestamp), count(*) as n from readings where timestamp >= -2d
= select count(*) as n from readings where timestamp >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-2 days') group by @inc(hour,1,timestamp) order by @inc(hour,1,timestamp)
