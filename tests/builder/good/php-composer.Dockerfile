FROM composer:2 AS vendor
WORKDIR /app
COPY composer.json composer.lock ./
RUN composer install --no-dev --no-scripts --no-autoloader
COPY . .
RUN composer dump-autoload --optimize
FROM php:8.3-apache
RUN docker-php-ext-install pdo_mysql
COPY --from=vendor /app /var/www/html
